"""The plan of a reconstruction: its stages and devices, decided once from the headers of a stack and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.passes import DEPTH, frame_bands
from cpikan.pipeline.reconstruction.settings import METHODS, Method, ReconstructSettings
from cpikan.pipeline.reconstruction.stage import Stage, scratch_files
from cpikan.pipeline.reconstruction.stages.demodulate import Demodulate
from cpikan.pipeline.reconstruction.stages.doubt_edges import DoubtEdges
from cpikan.pipeline.reconstruction.stages.form import RemoveForm
from cpikan.pipeline.reconstruction.stages.inpaint import Inpaint
from cpikan.pipeline.reconstruction.stages.learn import Learn
from cpikan.pipeline.reconstruction.stages.refine import Refine
from cpikan.pipeline.reconstruction.stages.take_reference import TakeReference
from cpikan.pipeline.reconstruction.stages.unwrap import Ripple, Unwrap
from cpikan.pipeline.reconstruction.stages.widen_sigma import WidenSigma
from cpikan.pipeline.reconstruction.stages.write import Write
from cpikan.pipeline.stacks.reference import Reference
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.calibration.movement.registration import EdgeReach
from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.psi.kernels.select import choose_device
from cpikan.psi.model.schemes import LEAST_SQUARES
from cpikan.storage.formats import Format
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.layout import QUANTITIES, SLOPES, output_format, required_bytes


class StackInfo(NamedTuple):
    """What a plan depends on: the shape (L, K, H, W) of the frames, what their steps are worth, and the reference."""

    shape: tuple[int, int, int, int]
    steps: str
    reference: Reference | None = None

    @classmethod
    def of(cls, stack: FrameStack) -> StackInfo:
        """Read the headers of a stack."""
        return cls(stack.shape, stack.acquisition.steps, stack.reference)


@dataclass(frozen=True)
class Plan:
    """What a run does after calibrating, in this order, and on which devices.

    ``device`` demodulates the frames, ``network_device`` runs a learned model. ``neighbours``: whether pixels of several
    wavelengths ask their neighbours for the order. ``fits_surface``: calibration may fit a smooth surface to the frames.
    ``slopes``: derivatives of the surface are stored. ``device_is_free``: the program may choose another device.
    """

    stages: tuple[Stage, ...]
    method: Method
    target: Format
    height_only: bool
    device: str
    network_device: str
    device_is_free: bool
    neighbours: Literal["never", "in doubt", "always"]
    fits_surface: bool
    slopes: bool

    @property
    def names(self) -> tuple[str, ...]:
        """List the stages by name."""
        return ("calibrate", *(stage.name for stage in self.stages))

    @property
    def quantities(self) -> tuple[str, ...]:
        """List the maps of the output: what the stages make, as far as the kind of file stores it."""
        if self.height_only:
            return ("height_nm",)
        made = {name for stage in self.stages for name in (*stage.writes, *stage.derives)}
        return tuple(name for name in QUANTITIES if name in made and name not in self.target.leaves_out)

    @property
    def scratch(self) -> Mapping[str, np.dtype]:
        """List the scratch arrays by file; none where the frames are turned into the output in one pass."""
        return scratch_files(self.stages)

    def settle(self, *, doubtful: bool, varying: bool, reach: EdgeReach | None = None, wider: bool = False) -> Plan:
        """Settle the plan after calibration: neighbours are asked or not, and the frames run where kernels serve them.

        ``doubtful``: orders of single pixels are in doubt; ``varying``: steps vary over the image, which only the CPU serves;
        ``reach``: how far from edges pixels are to be flagged, None for not at all; ``wider``: sigma is to allow for more
        than the pixels' own noise.
        """
        asks = self.neighbours == "always" or (self.neighbours == "in doubt" and doubtful)
        on_cpu = asks or (varying and self.device_is_free)
        plan = replace(self, neighbours="always" if asks else "never", device="cpu" if on_cpu else self.device)
        more: list[Stage] = [] if reach is None else [DoubtEdges(reach=reach)]
        more += [WidenSigma()] if wider and not self.height_only else []
        return replace(plan, stages=_with(self.stages, more)) if more else plan


def plan_reconstruction(info: StackInfo, settings: ReconstructSettings, target: Format, accelerator: str) -> Plan:
    """Decide what a reconstruction into a file of that format does; ``accelerator`` is what `choose_device` found.

    Raises InputError for settings that do not serve such a stack.
    """
    _check(info, settings)
    method, one_wave = METHODS[settings.method], info.shape[0] == 1
    height_only = target.height_alone and not settings.all_quantities
    slopes = SLOPES if method.surface and not height_only and info.reference is None else ()
    neighbours = "never" if one_wave else method.neighbours
    whole = bool(one_wave or settings.remove or settings.inpaint or method.network or info.reference)
    stages: list[Stage]
    if one_wave:
        stages = [Demodulate.to_phases(), Unwrap(), Ripple()]
        far = method.surface or settings.inpaint
        stages += [Refine.by(surface=method.surface, slopes=slopes, far=far)] if method.refines else []
    else:
        stages = [Demodulate.to_heights(slopes, direct=not whole)]
    stages += [Learn()] if method.network else []
    stages += [] if info.reference is None else [TakeReference.off(one_wave=one_wave)]
    stages += [RemoveForm()] if settings.remove else []
    stages += [Inpaint()] if settings.inpaint else []
    stages += [Write()] if whole else []
    return Plan(
        stages=tuple(stages),
        method=method,
        target=target,
        height_only=height_only,
        device="cpu" if neighbours == "always" else accelerator,
        network_device=accelerator,
        device_is_free=settings.device == "auto",
        neighbours=neighbours,
        fits_surface=one_wave and method.surface and settings.scheme == LEAST_SQUARES,
        slopes=bool(slopes),
    )


def _with(stages: tuple[Stage, ...], more: list[Stage]) -> tuple[Stage, ...]:
    """Put stages behind the demodulation, which then goes by way of scratch arrays."""
    first, *rest = stages
    if isinstance(first, Demodulate) and first.direct:
        first, rest = first.stored(), [Write()]
    return first, *more, *rest


def _check(info: StackInfo, settings: ReconstructSettings) -> None:
    if settings.fit is not None and info.steps == "trusted":
        raise InputError("--fit estimates what differs between frames, but the steps are trusted: say --steps nominal")
    if info.shape[0] > 1:
        return
    if settings.unwrap_overlap < 2:
        raise InputError(f"overlap {settings.overlap} is too small to join tiles: give 2 to half a tile")
    if settings.range_nm is not None:
        raise InputError("--range needs two or more wavelengths: one wavelength has no absolute orders; leave it out")


_PROCESS_MIB = 160  # interpreter, NumPy, compiled kernels
_MAP_BYTES = 13  # of a pixel: height, sigma, modulation, flags
_OUTPUTS = {"npy": ("x.npy", False), "npy_all": ("x.npy", True), "tif": ("x.tif", False), "zarr": ("x.zarr", False)}


def estimate_run(
    stack: FrameStack, settings: ReconstructSettings | None = None, output: str = "x.zarr"
) -> dict[str, Any]:
    """Estimate what a run with ``settings`` into ``output`` would do and take.

    By stage, with bands, disk per output format and memory; JSON-able, bytes and MiB. Raises InputError for settings
    that do not serve the stack.
    """
    asked, shape = settings or ReconstructSettings(), stack.shape[2:]
    accelerator = choose_device(asked.device)

    def plan(path: str, **changes: Any) -> Plan:
        return plan_reconstruction(StackInfo.of(stack), replace(asked, **changes), output_format(path), accelerator)

    def disk(**changes: Any) -> dict[str, int]:
        plans = {kind: (path, plan(path, all_quantities=a, **changes)) for kind, (path, a) in _OUTPUTS.items()}
        return {kind: required_bytes(path, shape, made.quantities) for kind, (path, made) in plans.items()}

    def scratch(**changes: Any) -> int:
        return ScratchArrays.required_bytes(shape, plan(output, **changes).scratch)

    chosen = plan(output)
    rows = frame_bands(stack, asked.band_rows, 0, CpuKernels.band_bytes)[0].rows
    band_mib = (stack.input_bytes // shape[0] + _MAP_BYTES * shape[1]) * rows / 2**20
    return {
        "method": "unwrap by tiles" if "unwrap" in chosen.names else "joint orders per pixel",
        "stages": list(chosen.names),
        "device": chosen.device,
        "calibrates_steps": stack.acquisition.steps != "trusted",
        "band_rows": rows,
        "disk_bytes": disk(),
        "disk_bytes_field": disk(method="field", model=None),
        "scratch_bytes": scratch(),
        "scratch_bytes_field": scratch(method="field", model=None),
        "scratch_bytes_learned": scratch(method="learned"),
        "memory_mib": round(_PROCESS_MIB + (2 * DEPTH + 2) * band_mib),
    }


def format_estimate(estimate: dict[str, Any]) -> str:
    """Write what `estimate_run` gave as lines for people."""
    steps = ", steps estimated first" if estimate["calibrates_steps"] else ""
    return "\n".join(
        [
            f"{'would do':<12} {estimate['method']}{steps}, in bands of {estimate['band_rows']} rows",
            f"{'stages':<12} {', '.join(estimate['stages'])}",
            f"{'disk':<12} {_sizes(estimate, '')}",
            f"{'disk, field':<12} {_sizes(estimate, '_field')} (--method field: slopes and curvature too)",
            f"{'learned':<12} {estimate['scratch_bytes_learned'] / 2**20:.0f} MiB while it runs (--method learned)",
            f"{'memory':<12} about {estimate['memory_mib']} MiB",
        ]
    )


def _sizes(estimate: dict[str, Any], method: str) -> str:
    """Format the disk space per kind of output, and of the scratch files, in MiB."""
    disk, scratch = estimate[f"disk_bytes{method}"], estimate[f"scratch_bytes{method}"]
    sizes = ", ".join(f".{kind.replace('_all', ' --all')} {size / 2**20:.0f} MiB" for kind, size in disk.items())
    return sizes + (f", and {scratch / 2**20:.0f} MiB while it runs" if scratch else "")
