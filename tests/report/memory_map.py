"""Height maps in memory: shared by the tests of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpikan.pipeline.maps.height_map import HeightMap


def memory_map(
    height_nm: Any, path: Path = Path("wafer.zarr"), document: dict[str, Any] | None = None, **arrays: Any
) -> HeightMap:
    """A map of heights and of the other quantities that are given by name."""
    return HeightMap(path, {"height_nm": height_nm, **arrays}, document or {})
