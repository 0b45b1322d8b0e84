"""Pixels whose surface is noise take the order of fewest jumps; the vector loops against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.psi.unwrap.phasor import angles, phasors
from cpikan.psi.unwrap.relax import fewer_jumps

TURN = 2 * np.pi


def jumps(phase: np.ndarray, orders: np.ndarray, axis: int) -> np.ndarray:
    return np.diff(orders, axis=axis) + np.rint(np.diff(phase, axis=axis) / TURN)


def energy(phase: np.ndarray, orders: np.ndarray, surface: np.ndarray, coherence: np.ndarray) -> float:
    away = (phase + TURN * orders - surface) / TURN
    total = sum(np.nansum(np.abs(jumps(phase, orders, axis))) for axis in (0, 1))
    return float(total + np.nansum(200 * coherence**2 * away**2))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 7), st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_no_single_pixel_can_lower_the_sum_any_more(seed: int, height: int, width: int, most: float) -> None:
    random = np.random.default_rng(seed)
    phase = random.uniform(-np.pi, np.pi, (height, width)).astype(np.float32)
    phase[random.random(phase.shape) < 0.1] = np.nan
    surface = random.uniform(-9, 9, phase.shape)  # float64, as a tile has it
    coherence = (most * random.random(phase.shape)).astype(np.float32)
    start = np.nan_to_num(np.rint((surface - phase) / TURN)).astype(np.int32)
    orders = start.copy()
    moves = fewer_jumps(phase, orders, surface, coherence)
    least = energy(phase, orders, surface, coherence)
    assert least <= energy(phase, start, surface, coherence)
    assert moves >= np.abs(orders - start).sum()
    assert not orders[np.isnan(phase)].any()
    for y, x in np.argwhere(np.isfinite(phase)):
        for step in (-1, 1):
            moved = orders.copy()
            moved[y, x] += step
            # A move must gain 1e-3; float32 rounding of squares up to 200 * 2 turns^2 is 5e-5.
            assert energy(phase, moved, surface, coherence) > least - 2e-3


def test_a_coherent_surface_stays() -> None:
    """At full coherence a move costs 200 (1 - 2 r) for a pixel r turns away, and can save four jumps at most."""
    random = np.random.default_rng(3)
    surface = np.add.outer(0.3 * np.arange(80), 0.2 * np.arange(90))
    phase = surface + random.normal(size=surface.shape).astype(np.float32)
    phase = (phase - TURN * np.rint(phase / TURN)).astype(np.float32)
    nearest = np.rint((surface - phase) / TURN).astype(np.int32)
    orders = nearest.copy()
    fewer_jumps(phase, orders, surface, np.ones_like(phase))
    moved = orders != nearest
    assert np.all(np.abs((phase + TURN * nearest - surface) / TURN)[moved] > 0.5 - 4 / 400)
    assert moved.mean() < 1e-3


def test_noise_alone_loses_a_good_part_of_its_jumps() -> None:
    random = np.random.default_rng(4)
    phase = random.uniform(-np.pi, np.pi, (100, 100)).astype(np.float32)
    orders = np.zeros(phase.shape, np.int32)
    before = sum(np.count_nonzero(jumps(phase, orders, axis)) for axis in (0, 1))
    fewer_jumps(phase, orders, np.zeros(phase.shape), np.zeros_like(phase))
    after = sum(np.count_nonzero(jumps(phase, orders, axis)) for axis in (0, 1))
    assert after < 0.85 * before


@pytest.mark.parametrize("width", [1, 7, 64, 100])
def test_phasors_and_angles_are_those_of_numpy(width: int) -> None:
    random = np.random.default_rng(width)
    phase = random.uniform(-8, 8, (5, width)).astype(np.float32)
    weight = random.uniform(0.1, 3, phase.shape).astype(np.float32)
    weight[random.random(phase.shape) < 0.2] = 0
    phase[weight == 0] = np.nan
    real, imag = phasors(phase, weight)
    valid = weight > 0
    # The series is 6e-8 off; turns are rounded to 6e-8 of up to 1.3, times 2 pi; then the weight.
    limit = 3 * (6e-8 + TURN * 1.3 * 6e-8 * 2)
    np.testing.assert_allclose(real[valid], (weight * np.cos(phase.astype(float)))[valid], atol=limit)
    np.testing.assert_allclose(imag[valid], (weight * np.sin(phase.astype(float)))[valid], atol=limit)
    assert not real[~valid].any()
    assert not imag[~valid].any()
    back = angles(real, imag, weight)
    assert np.isnan(back[~valid]).all()
    error = (back - phase)[valid] / TURN
    assert np.abs(TURN * (error - np.rint(error))).max(initial=0) < 3e-6
