"""A map of any format into any other, and in words what the other one cannot hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.maps.save import save_map
from cpikan.storage.formats import format_of
from cpikan.streaming.events import Events
from cpikan.units import as_json


def convert_map(
    source: str | Path | HeightMap, output: str | Path, *, overwrite: bool = False, progress: bool | Events = False
) -> dict[str, Any]:
    """Write the map ``source`` into ``output``, whose suffix names the format, and return what became of it.

    ``lost`` names what the output cannot hold; ``warnings`` says it in a line, with what was made up and what the
    source does not tell. Raises InputError as `open_height_map` and `HeightMap.save` do.
    """
    start = time.perf_counter()
    height_map = source if isinstance(source, HeightMap) else open_height_map(source)
    saved = save_map(height_map, Path(output), overwrite=overwrite, progress=progress)
    seconds = time.perf_counter() - start
    height, width = height_map.shape
    known = format_of(Path(output))
    assert known is not None
    return {
        "source": str(height_map.path),
        "output": str(output),
        "format": known.name,
        "shape": [height, width],
        "pixel_um": as_json(height_map.pixel_um),
        "wavelengths_nm": list(height_map.wavelengths_nm),
        "valid_fraction": saved.valid / (height * width),
        "lost": list(saved.lost),
        "warnings": [*height_map.notes, *saved.told],
        "seconds": seconds,
        "megapixels_per_second": height * width / 1e6 / seconds,
    }
