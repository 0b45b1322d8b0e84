"""Notes and masks that were drawn on a map: in a file beside it, never in it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.storage.atomic import refuse_link, write_json
from cpikan.storage.documents import parse_json

MOST_BYTES = 1 << 20
_MOST, _LONGEST_TEXT = 1000, 2000


def remarks_path(path: Path) -> Path:
    """Name the file of notes and masks beside a map."""
    return path.with_name(path.name + ".remarks.json")


def read_remarks(path: Path) -> dict[str, Any]:
    """Read the notes and masks of a map, none where there is no file; raises InputError for a file that holds others."""
    file = remarks_path(path)
    if not file.exists():
        return {"notes": [], "masks": []}
    if file.stat().st_size > MOST_BYTES:
        raise InputError(f"{file} is larger than {MOST_BYTES} bytes: it was not written here; move it away")
    return parse_remarks(file.read_bytes(), str(file))


def write_remarks(path: Path, content: bytes) -> dict[str, Any]:
    """Check notes and masks and write them beside a map; returns what was written, raises InputError for anything else."""
    remarks = parse_remarks(content, "what was sent")
    refuse_link(remarks_path(path))
    write_json(remarks_path(path), remarks)
    return remarks


def parse_remarks(content: bytes, what: str) -> dict[str, Any]:
    """Read ``notes`` (x, y, text) and ``masks`` (name, corners (x, y)): pixels, the centre of the first at 0.

    Raises InputError for anything else.
    """
    try:
        found = parse_json(content)
        notes = [
            {"x": _number(note["x"]), "y": _number(note["y"]), "text": _text(note["text"])}
            for note in _some(found["notes"], 0)
        ]
        masks = [
            {
                "name": _text(mask["name"]),
                "corners": [[_number(part) for part in _pair(corner)] for corner in _some(mask["corners"], 3)],
            }
            for mask in _some(found["masks"], 0)
        ]
    except (ValueError, KeyError, TypeError) as failure:
        raise InputError(f"{what} is no list of notes and masks ({failure}): see docs/how-to/view.md") from failure
    return {"notes": notes, "masks": masks}


def _some(given: object, fewest: int) -> list[Any]:
    if not isinstance(given, list) or not fewest <= len(given) <= _MOST:
        raise ValueError(f"a list of {fewest} to {_MOST} entries is expected")
    return given


def _pair(given: object) -> list[Any]:
    if not isinstance(given, list) or len(given) != 2:
        raise ValueError("a corner is [x, y]")
    return given


def _number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise ValueError("places are finite numbers")
    return float(given)


def _text(given: object) -> str:
    if not isinstance(given, str) or len(given) > _LONGEST_TEXT:
        raise ValueError(f"texts have at most {_LONGEST_TEXT} letters")
    return given
