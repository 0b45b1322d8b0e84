"""The robust peak to valley: what it leaves out, whatever the bands, and after a resumed run."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.pipeline.reconstruction.output import HeightSample


def plane(shape: tuple[int, int]) -> np.ndarray:
    return np.linspace(0, 1000, shape[0] * shape[1], dtype=np.float32).reshape(shape)


def test_a_handful_of_wild_pixels_is_left_out() -> None:
    height = plane((100, 200))
    height[7, ::50] = 1e6
    sample = HeightSample(height.shape)
    sample.add(0, {"height_nm": height, "flags": np.zeros(height.shape, np.uint8)})
    # ten of 20 000 pixels at either end; four of the upper ones are wild
    assert sample.pv_nm() == pytest.approx(1000 * (1 - 16 / 20_000), abs=0.2)


@pytest.mark.parametrize("cuts", [[], [1], [3, 700, 1400]])
def test_bands_change_nothing(cuts: list[int]) -> None:
    height = plane((1500, 2000)) ** 2
    whole, parts = HeightSample(height.shape), HeightSample(height.shape)
    whole.add(0, {"height_nm": height})
    for start, stop in zip([0, *cuts], [*cuts, 1500], strict=True):
        parts.add(start, {"height_nm": height[start:stop]})
    assert parts.pv_nm() == whole.pv_nm()
    assert whole.pv_nm() == pytest.approx(np.ptp(np.quantile(height, [5e-4, 1 - 5e-4])), rel=2e-3)


def test_guesses_and_holes_do_not_count() -> None:
    height = plane((40, 50))
    flags = np.zeros(height.shape, np.uint8)
    height[:5], flags[:5] = 1e9, 33  # in-painted: a height, but no measurement
    height[5, 5] = np.nan
    sample = HeightSample(height.shape)
    sample.add(0, {"height_nm": height, "flags": flags})
    assert sample.pv_nm() is not None
    assert sample.pv_nm() < 1000  # type: ignore[operator]


def test_a_sample_that_missed_rows_says_nothing() -> None:
    sample = HeightSample((40, 50), first_row=8)
    sample.add(8, {"height_nm": plane((40, 50))[8:]})
    assert sample.pv_nm() is None
