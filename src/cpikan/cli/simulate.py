"""The verb ``simulate``."""

from __future__ import annotations

from typing import Any

from cpikan.cli.verb import Place, job_verb


def _tell(result: dict[str, Any]) -> str:
    if result["already_finished"]:
        return f"{result['output']} is already finished"
    shape = " x ".join(str(n) for n in result["shape"])
    return (
        f"{result['output']}: frames {shape}, PV {result['pv_nm']:.1f} nm, RMS {result['rms_nm']:.1f} nm, "
        f"{result['seconds']:.1f} s ({result['megapixels_per_second']:.1f} MPix/s)"
    )


VERB = job_verb("simulate", (Place("output", "OUT", "folder to write"),), _tell)
