"""The plan of a reconstruction: its stages and devices, decided once from the headers of a stack and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.arrays import scratch_files
from cpikan.pipeline.reconstruction.methods import METHODS, Method
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.reconstruction.stage import Stage
from cpikan.pipeline.reconstruction.stages.demodulate import Demodulate
from cpikan.pipeline.reconstruction.stages.doubt_steps import DoubtSteps
from cpikan.pipeline.reconstruction.stages.form import RemoveForm
from cpikan.pipeline.reconstruction.stages.inpaint import Inpaint
from cpikan.pipeline.reconstruction.stages.learn import Learn
from cpikan.pipeline.reconstruction.stages.refine import Refine
from cpikan.pipeline.reconstruction.stages.unwrap import Ripple, Unwrap
from cpikan.pipeline.reconstruction.stages.write import Write
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.model.schemes import LEAST_SQUARES
from cpikan.storage.formats import Format
from cpikan.storage.writers.layout import QUANTITIES, SLOPES


class StackInfo(NamedTuple):
    """What a plan depends on: the shape (L, K, H, W) of the frames, and what their steps are worth."""

    shape: tuple[int, int, int, int]
    steps: str

    @classmethod
    def of(cls, stack: FrameStack) -> StackInfo:
        """Read the headers of a stack."""
        return cls(stack.shape, stack.acquisition.steps)


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

    def settle(self, *, doubtful: bool, varying: bool, step_reach_px: int = 0) -> Plan:
        """Settle the plan after calibration: neighbours are asked or not, and the frames run where kernels serve them.

        ``doubtful``: orders of single pixels are in doubt; ``varying``: steps vary over the image, which only the CPU serves;
        ``step_reach_px``: how far from a step pixels are to be flagged, 0 for not at all.
        """
        asks = self.neighbours == "always" or (self.neighbours == "in doubt" and doubtful)
        on_cpu = asks or (varying and self.device_is_free)
        plan = replace(self, neighbours="always" if asks else "never", device="cpu" if on_cpu else self.device)
        return replace(plan, stages=_doubting(self.stages, step_reach_px)) if step_reach_px else plan


def plan_reconstruction(info: StackInfo, settings: ReconstructSettings, target: Format, accelerator: str) -> Plan:
    """Decide what a reconstruction into a file of that format does; ``accelerator`` is what `choose_device` found.

    Raises InputError for settings that do not serve such a stack.
    """
    _check(info, settings)
    method, one_wave = METHODS[settings.method], info.shape[0] == 1
    height_only = target.height_alone and not settings.all_quantities
    slopes = SLOPES if method.surface and not height_only else ()
    neighbours = "never" if one_wave else method.neighbours
    whole = bool(one_wave or settings.remove or settings.inpaint or method.network)
    stages: list[Stage]
    if one_wave:
        stages = [Demodulate.to_phases(), Unwrap(), Ripple()]
        stages += [Refine.by(surface=method.surface, slopes=slopes)] if method.refines else []
    else:
        stages = [Demodulate.to_heights(slopes, direct=not whole)]
    stages += [Learn()] if method.network else []
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


def _doubting(stages: tuple[Stage, ...], reach_px: int) -> tuple[Stage, ...]:
    """Flag pixels beside steps once they are demodulated, which then goes by way of scratch arrays."""
    first, *rest = stages
    if isinstance(first, Demodulate) and first.direct:
        first, rest = first.stored(), [Write()]
    return first, DoubtSteps(reach_px=reach_px), *rest


def _check(info: StackInfo, settings: ReconstructSettings) -> None:
    if settings.fit is not None and info.steps == "trusted":
        raise InputError("--fit estimates what differs between frames, but the steps are trusted: say --steps nominal")
    if info.shape[0] > 1:
        return
    if settings.unwrap_overlap < 2:
        raise InputError(f"overlap {settings.overlap} is too small to join tiles: give 2 to half a tile")
    if settings.range_nm is not None:
        raise InputError("--range needs two or more wavelengths: one wavelength has no absolute orders; leave it out")
