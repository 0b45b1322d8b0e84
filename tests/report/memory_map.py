"""Height maps in memory, for pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpikan.pipeline.maps.height_map import HeightMap


def memory_map(
    height_nm: Any,
    sigma_nm: Any = None,
    modulation: Any = None,
    flags: Any = None,
    *,
    path: Path = Path("wafer.zarr"),
    document: dict[str, Any] | None = None,
) -> HeightMap:
    """A height map whose arrays need no file."""
    arrays = {"height_nm": height_nm, "sigma_nm": sigma_nm, "modulation": modulation, "flags": flags}
    return HeightMap(path, {name: array for name, array in arrays.items() if array is not None}, document or {})
