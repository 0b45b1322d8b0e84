"""What was understood of a stack, for ``info``: once as JSON, once for people."""

from __future__ import annotations

import math
from typing import Any

from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.units import as_json, format_length, pixel_pair


def describe_stack(stack: FrameStack) -> dict[str, Any]:
    """Describe a stack in JSON types only; what is unknown is None (``saturation_dn`` too, where nothing saturates)."""
    acquisition = stack.acquisition
    steps = acquisition.phase_steps_deg
    return {
        "source": stack.source,
        "form": stack.form,
        "shape": list(stack.shape),
        "dtype": str(stack.dtype),
        "first_frame": stack.labels[0],
        "last_frame": stack.labels[-1],
        "wavelengths_nm": list(acquisition.wavelengths_nm),
        "phase_steps_deg": None if steps is None else [list(row) for row in steps],
        "steps": acquisition.steps,
        "pixel_um": as_json(acquisition.pixel_um),
        "bit_depth": stack.bit_depth,
        "saturation_dn": stack.saturation_dn if math.isfinite(stack.saturation_dn) else None,
        "input_bytes": stack.input_bytes,
    }


def format_description(description: dict[str, Any]) -> str:
    """Write what ``describe_stack`` gave as lines for people."""
    wavelengths, steps, height, width = description["shape"]
    pixel, bits = description["pixel_um"], description["bit_depth"]
    lines = {
        "stack": f"{description['source']} ({description['form']})",
        "frames": f"{wavelengths} wavelength{'s' if wavelengths > 1 else ''} x {steps} steps, {height} rows x {width} "
        f"columns, {description['first_frame']} to {description['last_frame']}",
        "wavelengths": ", ".join(format_length(value) for value in description["wavelengths_nm"]),
        "phase steps": _steps_line(description),
        "pixel": _pixel_line(pixel),
        "values": f"{description['dtype']}, {bits} bits" if bits else f"{description['dtype']}, nothing saturates",
        "input": f"{description['input_bytes'] / 2**20:.1f} MiB",
    }
    return "\n".join(f"{name:<12} {text}" for name, text in lines.items())


def _pixel_line(pixel_um: Any) -> str:
    pair = pixel_pair(pixel_um)
    if pair is None:
        return "unknown, lateral numbers are in pixels"
    y, x = (format_length(1000 * size) for size in pair)
    return x if y == x else f"{y} from row to row, {x} from column to column"


def _steps_line(description: dict[str, Any]) -> str:
    rows = description["phase_steps_deg"]
    if rows is None:
        return "unknown, to be found from the frames; the sign of the height will be assumed"
    distinct = list(dict.fromkeys(", ".join(f"{step:g}" for step in row) for row in rows))
    return f"{' | '.join(distinct)} deg ({description['steps']})"
