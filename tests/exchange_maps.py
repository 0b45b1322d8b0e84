"""Maps that exist in memory alone, for tests of formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.pipeline.maps.height_map import HeightMap

PIXEL_UM = (2.5, 1.25)  # y, x
EPS32 = 2.0**-24  # half a unit in the last place of float32


def marked(shape: tuple[int, int] = (19, 26), seed: int = 1) -> np.ndarray:
    """Heights in nm, float32, no two corners alike, whose holes have no symmetry."""
    heights = np.random.default_rng(seed).normal(0, 300, shape).astype(np.float32)
    heights[0, 0], heights[0, -1], heights[-1, 0], heights[-1, -1] = 5000, 4000, -3000, np.nan
    heights[2, 3:7] = np.nan
    heights[shape[0] // 2, 1] = np.nan
    return heights


def in_memory(heights: np.ndarray, pixel_um: Any = PIXEL_UM, waves: Sequence[float] = (632.8,)) -> HeightMap:
    """A map that is nowhere on disk, of ours."""
    acquisition = {"wavelengths_nm": list(waves), "pixel_um": pixel_um}
    return HeightMap(Path("memory.npy"), {"height_nm": heights}, {"acquisition": acquisition})
