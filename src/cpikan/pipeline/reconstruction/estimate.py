"""What a reconstruction of a stack would do and need, from its headers alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cpikan.pipeline.reconstruction.passes import DEPTH, frame_bands
from cpikan.pipeline.reconstruction.plan import Plan, StackInfo, plan_reconstruction
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.psi.kernels.select import choose_device
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.layout import output_format, required_bytes

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
