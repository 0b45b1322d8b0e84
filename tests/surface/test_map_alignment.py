from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.surface import alignment
from cpikan.surface.alignment import Block, align
from cpikan.surface.levelling import Plane

LIMIT = 158.2


def _sweep(difference: np.ndarray, labels: np.ndarray | None = None, band: int = 50):
    def blocks() -> Iterator[Block]:
        for start in range(0, len(difference), band):
            rows = slice(start, start + band)
            yield Block(start, difference[rows].copy(), None if labels is None else labels[rows])

    return blocks


def test_piston_is_the_mean_of_the_right_pixels() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2.0, (300, 301))
    difference = 40.0 + noise
    wrong = rng.random(difference.shape) < 0.3
    difference[wrong] += 316.4
    difference[:20] = np.nan
    found = align(_sweep(difference), difference.shape, LIMIT)
    right = ~wrong & np.isfinite(difference)
    assert found.pistons_nm == pytest.approx([40.0 + noise[right].mean()], abs=1e-10)
    assert found.tilt_nm == (0.0, 0.0)


@pytest.mark.parametrize("sampled", [2_000_000, 5_000])
def test_tilt_and_pistons_per_component_in_spite_of_wrong_orders(sampled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_SAMPLE", sampled)
    rng = np.random.default_rng(1)
    shape = (400, 300)
    labels = np.zeros(shape, np.int64)
    labels[200:, :] = 2  # label 1 has no pixel
    labels[350:, 250:] = 3
    pistons = np.array([5.0, 0.0, -900.0, 77.0])
    # a tilt of several orders across the map: pistons alone would call most pixels wrong
    difference = Plane(shape, 0.0, 700.0, -1200.0).rows(0, 400) + pistons[labels] + rng.normal(0, 1.0, shape)
    wrong = rng.random(shape) < 0.15
    difference[wrong] += rng.choice([-316.4, 316.4, 632.8], int(wrong.sum()))
    found = align(_sweep(difference, labels), shape, LIMIT, tilt=True)
    assert found.components == 3
    # slope error: 1 nm / sqrt(1e5 * 1/3) = 0.006 within the halves (y spans half: * 2); five sigma and more
    assert found.tilt_nm == pytest.approx((700.0, -1200.0), abs=0.08)
    assert found.pistons_nm == pytest.approx(pistons, abs=0.3)
    error = np.concatenate([found.error(block) for block in _sweep(difference, labels)()])
    assert np.array_equal(np.abs(error) > LIMIT, wrong)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_small_maps_never_break(height: int, width: int, seed: int, tilt: bool) -> None:
    rng = np.random.default_rng(seed)
    difference = rng.normal(0, 1, (height, width))
    difference[rng.random(difference.shape) < 0.4] = np.nan
    labels = rng.integers(0, 4, difference.shape)
    found = align(_sweep(difference, labels, 5), (height, width), LIMIT, tilt=tilt)
    error = np.concatenate([found.error(block) for block in _sweep(difference, labels, 5)()])
    assert np.array_equal(np.isfinite(error), np.isfinite(difference))
    for label in range(4):
        part = error[(labels == label) & np.isfinite(error)]
        if part.size:  # least squares leaves no mean in any component
            assert part.mean() == pytest.approx(0.0, abs=1e-9)


def test_the_sample_is_even_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_SAMPLE", 1000)
    sizes = np.array([100_000, 50, 0])
    steps = alignment._sample_steps(sizes, 300)
    assert np.all(np.gcd(steps, 300) == 1)
    assert steps[1] == 1
    points = alignment._sample(_sweep(np.zeros((1000, 300))), (1000, 300), np.array([300_000]))
    assert 500 < points.value.size <= 1000
    assert abs(points.x.mean()) < 0.1  # not a few columns
    assert np.unique(points.x).size > 250
