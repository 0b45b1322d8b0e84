"""One bad pixel in one frame: it alone is invalid, and others change by what one sample less does to the calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import cpikan
from independent_frames import Scene
from small_stacks import INVALID, stack_of


def test_a_pixel_that_is_nan_in_one_frame_is_invalid_alone(
    wafer: Scene, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    frames = np.asarray(wafer.frames).astype(np.float32)
    broken = frames.copy()
    y, x = frames.shape[2] // 2, frames.shape[3] // 2
    broken[1, 2, y, x] = np.nan
    whole, less = (
        cpikan.reconstruct(
            stack_of(one, bit_depth=8), tmp_path / f"{name}.npy", method="pixel", all_quantities=True, progress=False
        )
        for name, one in (("whole", frames), ("less", broken))
    )
    heights, others = np.asarray(whole.height_nm), np.array(less.height_nm)
    assert np.isfinite(heights[y, x])
    assert np.isnan(others[y, x])
    assert np.asarray(less.flags)[y, x] & INVALID
    others[y, x] = heights[y, x]
    changed = float(np.nanmax(np.abs(others - heights)))
    record_property("largest change of another pixel in nm", changed)
    np.testing.assert_array_equal(np.isnan(others), np.isnan(heights))
    # one sample less of the thousands that the calibration sees
    assert changed <= 1e-3 * float(np.nanmedian(np.asarray(whole.sigma_nm)))
