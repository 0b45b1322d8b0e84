"""A map that tests look at: a tilted bowl with a pit, a scratch, a hole and flags."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

PIT, SCRATCH_ROW, DEPTH = (700, 333), 400, 25.0


def heights_of(shape: tuple[int, int] = (1200, 1500), seed: int = 0) -> np.ndarray:
    """Make heights in nm with noise of 0.5 nm; a scratch 25 nm deep and 7 rows wide, a pit of 40 nm."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    heights = 80 * np.hypot(y / shape[0] - 0.5, x / shape[1] - 0.5) + 0.01 * x + rng.normal(0, 0.5, shape)
    heights[SCRATCH_ROW - 3 : SCRATCH_ROW + 4, 200:1100] -= DEPTH
    heights[PIT] -= 40
    heights[:60, :80] = np.nan
    return heights.astype(np.float32)


def write_map(path: Path, heights: np.ndarray, pixel_um: float | list[float] | None = 5.0) -> Path:
    """Write heights with sigma, flags and a document."""
    np.save(path, heights)
    np.save(path.with_suffix(".sigma.npy"), np.where(np.isnan(heights), np.nan, 0.5).astype(np.float32))
    flags = np.where(np.isnan(heights), 1, 0).astype(np.uint8)
    flags[600:640, 600:640] |= 8
    np.save(path.with_suffix(".flags.npy"), flags)
    document = {
        "acquisition": {"wavelengths_nm": [632.8]},
        "summary": {"method": "auto", "warnings": ["a warning of the run"]},
    }
    document["acquisition"] |= {} if pixel_um is None else {"pixel_um": pixel_um}
    path.with_suffix(".json").write_text(json.dumps(document))
    return path
