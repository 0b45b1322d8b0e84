"""The verb ``ablate``."""

from __future__ import annotations

from typing import Any

from cpikan.cli.verb import OUTPUT, Place, job_verb
from cpikan.streaming.events import ProgressLine


def _tell(result: dict[str, Any]) -> str:
    whole = [one for one in result["effects"] if one["problem"] == "all" and one["beside"] == "plain"]
    width = max((len(one["part"]) for one in whole), default=0)
    lines = [
        f"{one['part']:<{width}}  {one['ratio']:8.2g} of the plain error, lower in {one['lower']} of {one['pairs']}, "
        f"p = {one['p_value']:.2g}"
        for one in whole
    ]
    counts = ", ".join(f"{result[name]} {name}" for name in ("done", "refused", "failed"))
    return "\n".join(
        [*lines, f"{result['output']}: {result['runs']} runs ({counts}); heat_map.png, ablation.md, *.csv"]
    )


VERB = job_verb(
    "ablate", (Place("output", "DIR", "folder to write", OUTPUT),), _tell, events=lambda: ProgressLine("runs", 1)
)
