"""Row sums of a height map: right, merged exactly, whatever the offset of the heights."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.psi.kernels.statistics import COLUMNS, MapStatistics, row_sums
from cpikan.psi.model.flags import Flag


def make_map(seed: int, shape: tuple[int, int], offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    height = (offset + rng.normal(0, 5, shape)).astype(np.float32)
    flags = rng.choice(
        np.array([0, 0, 0, Flag.INVALID, Flag.INVALID | Flag.SATURATED, Flag.AMBIGUOUS, Flag.LOW_MODULATION], np.uint8),
        shape,
    )
    flags[rng.random(shape[0]) < 0.3] = 0  # rows without any fault go another way
    height[flags & Flag.INVALID != 0] = np.nan
    return height, flags


def table_of(height: np.ndarray, flags: np.ndarray) -> np.ndarray:
    table = np.full((height.shape[0], COLUMNS), np.nan)
    row_sums(height, flags, table)
    return table


def statistics_of(height: np.ndarray, flags: np.ndarray) -> MapStatistics:
    found = MapStatistics()
    found.add(table_of(height, flags), height.shape[1])
    return found


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 8),
    st.sampled_from([1, 2, 7, 511, 512, 513, 1100]),
    st.sampled_from([0.0, -40.0, 1e4]),
)
def test_sums_agree_with_numpy(seed: int, rows: int, width: int, offset: float) -> None:
    height, flags = make_map(seed, (rows, width), offset)
    found = statistics_of(height, flags)
    good = height[flags & Flag.INVALID == 0].astype(float)
    assert found.pixels == rows * width
    assert found.valid == good.size
    for name, flag in (("ambiguous", Flag.AMBIGUOUS), ("saturated", Flag.SATURATED), ("low", Flag.LOW_MODULATION)):
        assert getattr(found, name) == (flags & flag != 0).sum()
    if good.size == 0:
        assert math.isnan(found.pv_nm)
        assert math.isnan(found.rms_nm)
        return
    assert (found.least, found.most) == (good.min(), good.max())
    # at most 512 deviations of some 20 nm are summed in float32: 512 * 2^-24 of their size; the mean square in float64
    assert found.h == pytest.approx(good.sum(), rel=1e-7, abs=1e-4 * good.size)
    assert found.rms_nm == pytest.approx(good.std(), rel=1e-4, abs=1e-3)
    assert found.pv_nm == pytest.approx(np.ptp(good))


def test_a_far_offset_does_not_drown_the_rms() -> None:
    """Heights count from where all phases vanish together: tens of um away, with nanometres of relief."""
    rng = np.random.default_rng(1)
    height = (30_000 + rng.normal(0, 5, (64, 1000))).astype(np.float32)
    found = statistics_of(height, np.zeros(height.shape, np.uint8))
    assert found.rms_nm == pytest.approx(height.astype(float).std(), rel=1e-4)


@given(st.integers(0, 99), st.sets(st.integers(1, 10), max_size=4))
@settings(max_examples=20, deadline=None)
def test_bands_change_no_bit(seed: int, cuts: set[int]) -> None:
    height, flags = make_map(seed, (11, 600), 1234.5)
    edges = [0, *sorted(cuts), 11]
    found = MapStatistics()
    for a, b in itertools.pairwise(edges):
        found.add(table_of(height[a:b], flags[a:b]), 600)
    assert found == statistics_of(height, flags)


def test_json_keeps_every_bit_and_the_empty_map() -> None:
    for found in (MapStatistics(), statistics_of(*make_map(5, (4, 33), 77.7))):
        assert MapStatistics.from_json(json.loads(json.dumps(found.to_json()))) == found
