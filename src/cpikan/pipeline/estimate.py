"""What a reconstruction of a stack would do and need, from its headers alone."""

from __future__ import annotations

from typing import Any

from cpikan.pipeline.passes import DEPTH, frame_bands
from cpikan.pipeline.stack import FrameStack
from cpikan.pipeline.two_pass import SCRATCH_PHASE
from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.storage.scratch import ScratchArrays
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
    scratch = ScratchArrays.required_bytes(shape, SCRATCH_PHASE) if wavelengths == 1 else 0
    return {
        "method": "unwrap by tiles" if wavelengths == 1 else "joint orders per pixel",
        "calibrates_steps": stack.acquisition.steps != "trusted",
        "band_rows": rows,
        "disk_bytes": {
            "npy": required_bytes("x.npy", shape, ("height_nm",)),
            "npy_all": required_bytes("x.npy", shape, ("height_nm", "sigma_nm", "flags", *one)),
            "tif": required_bytes("x.tif", shape, _ALL),
            "zarr": required_bytes("x.zarr", shape, (*_ALL, *one)),
        },
        "scratch_bytes": scratch,
        "memory_mib": round(_PROCESS_MIB + (2 * DEPTH + 2) * (frames_mib + maps_mib)),
    }


def format_estimate(estimate: dict[str, Any]) -> str:
    """Write what `estimate_run` gave as lines for people."""
    disk = estimate["disk_bytes"]
    sizes = ", ".join(f".{kind.replace('_all', ' --all')} {size / 2**20:.0f} MiB" for kind, size in disk.items())
    scratch = f", and {estimate['scratch_bytes'] / 2**20:.0f} MiB while it runs" if estimate["scratch_bytes"] else ""
    steps = ", steps estimated first" if estimate["calibrates_steps"] else ""
    return "\n".join(
        [
            f"{'would do':<12} {estimate['method']}{steps}, in bands of {estimate['band_rows']} rows",
            f"{'disk':<12} {sizes}{scratch}",
            f"{'memory':<12} about {estimate['memory_mib']} MiB",
        ]
    )
