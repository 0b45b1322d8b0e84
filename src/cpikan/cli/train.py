"""The verb ``train``."""

from __future__ import annotations

from typing import Any

from cpikan.cli.verb import OUTPUT, Place, job_verb
from cpikan.streaming.events import ProgressLine

MODEL = Place("output", "OUT", "writes OUT.safetensors and OUT.json", OUTPUT)


def progress_line() -> ProgressLine:
    """Make a progress line that counts steps."""
    return ProgressLine("steps", 1)


def tell(result: dict[str, Any]) -> str:
    """Format the figures of a training run as a few lines."""
    loss = "-" if result["loss"] is None else f"{result['loss']:.4g}"
    lines = [
        f"output     {result['output']} ({result['parameters']} parameters)",
        f"stopped    {result['stop_reason']}",
        f"loss       {loss} after {result['steps']} steps ({result['epochs']:.2f} epochs)",
    ]
    validation = result["validation"]
    if validation:
        lines.append(f"held out   loss {validation['loss']:.4g}{_figures(validation)}")
    if "changed" in result:
        physics = result["changed"]["physics"]
        lines.append(f"physics    {physics['before']:.6g} before, {physics['after']:.6g} after (held-out rows)")
    lines.append(
        f"time       {result['seconds']:.1f} s ({result['samples_per_second']:.1f} patches/s), "
        f"memory {result['peak_anonymous_mib']:.0f} MiB"
    )
    return "\n".join(lines)


def _figures(validation: dict[str, Any]) -> str:
    named = {
        "noise_ratio": "noise {:.3f} of the guide's",
        "coverage_95": "coverage {:.3f}",
        "wrong_orders_found": "wrong orders found {:.3f}",
        "false_orders": "false alarms {:.2g}",
    }
    return "".join(f", {text.format(validation[key])}" for key, text in named.items() if validation[key] is not None)


VERB = job_verb(
    "train",
    (Place("source", "CONFIG.toml", "tables [data], [model], [loss], ...: see docs/how-to/train.md"), MODEL),
    tell,
    events=progress_line,
)
