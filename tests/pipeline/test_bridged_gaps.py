"""Blocks of a finished map around a hole, and the gaps between parts that were joined."""

from __future__ import annotations

import numpy as np

from cpikan.pipeline.reconstruction.block_means import BlockMeans
from cpikan.pipeline.reconstruction.stages.inpaint import bridged
from cpikan.streaming.engine import Band

SHAPE = (523, 61)  # more than one band of blocks, neither side a multiple of eight


def test_block_means_are_those_of_whole_blocks_of_one_component():
    rng = np.random.default_rng(0)
    height = rng.normal(0, 2.0, SHAPE).astype(np.float32)
    hole = np.zeros(SHAPE, bool)
    hole[100:120, 20:31] = True
    height[hole] = np.nan
    component = np.where(hole, 0, 1).astype(np.int32)
    component[:, 50:] = 2

    def rows(band: Band) -> tuple[np.ndarray, np.ndarray]:
        return height[band.start : band.stop], component[band.start : band.stop]

    window = slice(16, 523), slice(8, 61)
    found = BlockMeans.gather(rows, lambda start, stop: hole[start:stop], window)
    assert found.height_nm.shape == (64, 7)
    for b in range(64):
        for c in range(7):
            part = np.s_[16 + 8 * b : 24 + 8 * b, 8 + 8 * c : 16 + 8 * c]
            of_one = len(np.unique(component[part])) == 1
            whole = height[part].shape == (8, 8) and not hole[part].any() and of_one
            expected = height[part].astype(float).mean() if whole else np.nan
            assert np.isclose(found.height_nm[b, c], expected, rtol=0, atol=1e-12, equal_nan=True)
            assert found.hole[b, c] == hole[part].any()
            assert found.component is not None
            assert found.component[b, c] == (component[part][0, 0] if whole else 0)
    # the median of sums of 48 dependent squares lies a few per cent below their mean
    assert 1.9 < found.noise_nm < 2.05


def test_gaps_lie_between_different_parts_that_are_one_now():
    before = np.zeros((12, 30), np.int32)
    before[2:10, 1:6], before[2:10, 11:16], before[2:10, 20:25] = 1, 2, 3
    after = np.where(before == 2, 1, np.where(before == 3, 2, before))
    expected = np.zeros(before.shape, bool)
    expected[1:11, 5:12] = True  # one block wider, for rims that cut blocks
    assert np.array_equal(bridged(before, after), expected)
    assert np.array_equal(bridged(before.T, after.T), expected.T)
    assert not bridged(before, before).any()
    notch = before.copy()
    notch[2:10, 1:25], notch[5:7, 8:25] = 1, 0
    assert not bridged(notch, notch).any()
