"""The few pixels that calibration looks at: where they lie, and that they are those of the frames."""

from __future__ import annotations

import numpy as np
import pytest

import cpikan
from cpikan.pipeline.stacks.subsample import take_subsample
from cpikan.psi.model.acquisition import Acquisition
from cpikan.surface.apertures.aperture import Rectangle

FOUR = (0.0, 90.0, 180.0, 270.0)
SHAPE = (40, 700)


@pytest.mark.parametrize("inside", [None, Rectangle(101, 3, 101 + 640, 33)])
def test_samples_lie_on_a_staggered_grid_within_the_mask(inside: Rectangle | None) -> None:
    y, x = np.indices(SHAPE)
    light = [np.rint(120 + 100 * np.cos(0.3 * x + 0.11 * y + np.radians(step))) for step in FOUR]
    frames = np.array(light).astype(np.uint8)[None]
    stack = cpikan.FrameStack.from_array(frames, Acquisition((633.0,), (FOUR,), "trusted"))
    sample = take_subsample(stack, inside)
    top, bottom, left, right = (0, 40, 0, 700) if inside is None else (3, 33, 101, 700)
    row, column = sample.position.T
    np.testing.assert_array_equal(sample.frames, frames[:, :, row, column])
    assert sample.valid.all()
    assert set(row) == set(range(top, bottom))
    assert column.min() >= left
    assert column.max() < right
    step = (right - left) // 128
    for line in range(top, bottom):
        here = column[row == line]
        assert here[0] - left < step  # from the first column on
        assert right - here[-1] <= step  # to the last
        assert (np.diff(here) == step).all()
    # every column of the grid is sampled on some line: a pattern of that period is not seen as a constant
    assert set((column - left) % step) == set(range(step))
