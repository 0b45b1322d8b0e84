"""What a reconstruction of a stack would do and need, from its headers alone."""

from __future__ import annotations

from typing import Any

from cpikan.pipeline.reconstruction.passes import DEPTH, frame_bands
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.reconstruction.two_pass import scratch_kinds
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.layout import SLOPES
from cpikan.storage.writers.open import required_bytes

_PROCESS_MIB = 160  # interpreter, NumPy, compiled kernels
_ALL = ("height_nm", "sigma_nm", "modulation", "flags")


def estimate_run(stack: FrameStack) -> dict[str, Any]:
    """Method, bands, disk per output format and memory; JSON-able, bytes and MiB."""
    wavelengths, steps, height, width = stack.shape
    shape = (height, width)
    one = ("component",) if wavelengths == 1 else ()
    rows = frame_bands(stack, None, 0, CpuKernels.band_bytes)[0].rows
    frames_mib = wavelengths * steps * rows * width * stack.dtype.itemsize / 2**20
    maps_mib = 13 * rows * width / 2**20  # height, sigma, modulation, flags
    scratch = _scratch_bytes(wavelengths, shape, ReconstructSettings())
    wanted = {
        "npy": ("height_nm",),
        "npy_all": ("height_nm", "sigma_nm", "flags", *one),
        "tif": _ALL,
        "zarr": (*_ALL, *one),
    }
    return {
        "method": "unwrap by tiles" if wavelengths == 1 else "joint orders per pixel",
        "calibrates_steps": stack.acquisition.steps != "trusted",
        "band_rows": rows,
        "disk_bytes": {kind: _bytes(kind, shape, names) for kind, names in wanted.items()},
        "disk_bytes_field": {
            kind: _bytes(kind, shape, names if kind == "npy" else (*names, *SLOPES)) for kind, names in wanted.items()
        },
        "scratch_bytes": scratch,
        "scratch_bytes_field": _scratch_bytes(wavelengths, shape, ReconstructSettings(method="field")),
        "scratch_bytes_learned": ScratchArrays.required_bytes(
            shape, scratch_kinds(wavelengths, ReconstructSettings(method="learned"))
        ),
        "memory_mib": round(_PROCESS_MIB + (2 * DEPTH + 2) * (frames_mib + maps_mib)),
    }


def _bytes(kind: str, shape: tuple[int, int], names: tuple[str, ...]) -> int:
    return required_bytes(f"x.{kind.removesuffix('_all')}", shape, names)


def _scratch_bytes(wavelengths: int, shape: tuple[int, int], settings: ReconstructSettings) -> int:
    """Of a run without a datum to remove or holes to fill."""
    return ScratchArrays.required_bytes(shape, scratch_kinds(1, settings)) if wavelengths == 1 else 0


def format_estimate(estimate: dict[str, Any]) -> str:
    """Write what `estimate_run` gave as lines for people."""
    steps = ", steps estimated first" if estimate["calibrates_steps"] else ""
    return "\n".join(
        [
            f"{'would do':<12} {estimate['method']}{steps}, in bands of {estimate['band_rows']} rows",
            f"{'disk':<12} {_sizes(estimate, '')}",
            f"{'disk, field':<12} {_sizes(estimate, '_field')} (--method field: slopes and curvature too)",
            f"{'learned':<12} {estimate['scratch_bytes_learned'] / 2**20:.0f} MiB while it runs (--method learned)",
            f"{'memory':<12} about {estimate['memory_mib']} MiB",
        ]
    )


def _sizes(estimate: dict[str, Any], method: str) -> str:
    """Disk per kind of output, and of the scratch files."""
    disk, scratch = estimate[f"disk_bytes{method}"], estimate[f"scratch_bytes{method}"]
    sizes = ", ".join(f".{kind.replace('_all', ' --all')} {size / 2**20:.0f} MiB" for kind, size in disk.items())
    return sizes + (f", and {scratch / 2**20:.0f} MiB while it runs" if scratch else "")
