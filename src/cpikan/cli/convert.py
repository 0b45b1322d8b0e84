"""The verb ``convert``."""

from __future__ import annotations

from typing import Any

from cpikan.cli.verb import Place, job_verb


def _tell(result: dict[str, Any]) -> str:
    height, width = result["shape"]
    return (
        f"{result['output']}: {result['format']}, {height} x {width}, {result['valid_fraction']:.2%} valid, "
        f"{result['seconds']:.1f} s ({result['megapixels_per_second']:.1f} MPix/s)"
    )


VERB = job_verb(
    "convert",
    (
        Place("source", "A", "height map of any format that is read, by its suffix"),
        Place("output", "B", "file to write; its suffix chooses the format"),
    ),
    _tell,
)
