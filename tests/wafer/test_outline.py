"""Centre, radius and notch of wafers with exact ones."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.wafer.outline import Wafer, find_wafer
from plain_wafer import Disc


def found(heights: np.ndarray, pixel_mm: tuple[float, float], diameter_mm: float | None = None) -> Wafer:
    def bands():
        for start in range(0, len(heights), 100):
            yield start, np.ascontiguousarray(heights[start : start + 100])

    return find_wafer(bands, heights.shape, pixel_mm, diameter_mm)


@pytest.mark.parametrize("missing", [0.0, 0.03])
@pytest.mark.parametrize("notch", [270.0, 0.0, 45.0, 123.4, 311.7])
def test_a_wafer_is_found_to_a_fraction_of_a_pixel(notch, missing):
    """100 mm on 620 pixels: the pixels of 300 mm on 1900. Half a pixel of error in each of n ends of rows and columns that
    are spread over a circle leaves 0.3 / sqrt(n / 2) = 0.012; the notch has 10 pixels across, 0.15 mm is one."""
    disc = Disc(620, 50.0, notch, missing)
    wafer = found(disc.cut(np.zeros((620, 620))), (disc.pixel_mm, disc.pixel_mm))
    assert wafer.x == pytest.approx(disc.centre[0], abs=0.05)
    assert wafer.y == pytest.approx(disc.centre[1], abs=0.05)
    assert wafer.radius_mm == pytest.approx(50, abs=(0.05 + missing) * disc.pixel_mm)
    away = (wafer.notch_deg - notch + 180) % 360 - 180
    assert abs(np.deg2rad(away) * 50) < 0.157  # mm of arc: 0.06 deg of a wafer of 300 mm


def test_pixels_need_not_be_square_nor_the_wafer_whole():
    disc = Disc(620, 50.0, 200.0)
    whole = disc.cut(np.zeros((620, 620)))
    tall = found(whole[::2], (2 * disc.pixel_mm, disc.pixel_mm))
    assert tall.y == pytest.approx(disc.centre[1] / 2, abs=0.1)
    assert tall.radius_mm == pytest.approx(50, abs=0.1 * disc.pixel_mm)
    part = found(whole[:, 130:500], (disc.pixel_mm,) * 2)
    assert part.x == pytest.approx(disc.centre[0] - 130, abs=0.1)
    assert part.radius_mm == pytest.approx(50, abs=0.1 * disc.pixel_mm)


def test_a_chip_of_the_edge_is_no_notch():
    disc = Disc(620, 50.0, None)
    heights = disc.cut(np.zeros((620, 620)))
    x, y = disc.places()
    assert found(heights, (disc.pixel_mm,) * 2).notch_deg is None
    heights[(y > 48) & (np.abs(x) < 5)] = np.nan
    assert found(heights, (disc.pixel_mm,) * 2).notch_deg is None


def test_without_an_edge_the_centre_is_that_of_the_valid_pixels():
    heights = np.full((200, 300), np.nan)
    heights[20:150, 40:241] = 0.0
    with pytest.raises(InputError, match="say the diameter"):
        found(heights, (0.1, 0.1))
    wafer = found(heights, (0.1, 0.1), 12.0)
    assert (wafer.x, wafer.y, wafer.radius_mm, wafer.notch_deg, wafer.seen) == (140, 84.5, 6, None, False)
    with pytest.raises(InputError, match="no pixel"):
        found(np.full((20, 20), np.nan), (0.1, 0.1))
