"""Stein's estimate of the noise that a denoiser leaves: that of linear smoothers is exact, and its error is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cpikan.images import stein
from cpikan.images.stein import STEP, NoiseLeft, Place, noise_left

SHAPE = (96, 96)
SIGMA_NM = 3.0
BUMPS_NM = 5 * np.sin(np.arange(96) / 3.0) * np.ones(SHAPE)  # a smoother of five pixels takes a part of them
KERNEL = np.outer(*2 * [np.array([1, 4, 6, 4, 1]) / 16])
KERNEL[2, 2] += 0.2  # no mean: it adds a fifth of each pixel


def smoothed(values: np.ndarray) -> np.ndarray:
    return ndimage.convolve(values, KERNEL, mode="wrap")


def place(rng: np.random.Generator, noise: np.ndarray, stated: float = 0.4) -> Place:
    """Smooth a noisy map; heights are in units of sigma."""
    seen = BUMPS_NM / SIGMA_NM + noise
    probe = rng.choice([-1.0, 1.0], SHAPE)
    correction = smoothed(seen) - seen
    moved = smoothed(seen + STEP * probe) - (seen + STEP * probe)
    used = np.ones(SHAPE, bool)
    return Place(correction, moved - correction, probe, np.full(SHAPE, stated), used)


def exact() -> float:
    """The square of what is taken from the bumps, and the noise that the weights leave."""
    taken = (smoothed(BUMPS_NM) - BUMPS_NM) / SIGMA_NM
    return float(np.mean(taken**2) + np.sum(KERNEL**2))


def test_a_linear_smoother_leaves_what_its_weights_say_within_the_error_that_is_stated(monkeypatch):
    """Mean of 60 maps within four of its standard errors; they scatter as stated, to three standard errors of a scatter.

    What is not known of the noise's variance does not scatter: it is left out here.
    """
    monkeypatch.setattr(stein, "_VARIANCE_KNOWN", 0.0)
    rng = np.random.default_rng(4)
    found = [noise_left([place(rng, rng.normal(size=SHAPE))], systematic=0.0, phase_noise_rad=0.0) for _ in range(60)]
    values, errors = (np.array([getattr(one, name) for one in found]) for name in ("found", "error"))
    assert abs(values.mean() - exact()) <= 4 * values.std() / np.sqrt(60)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(), rel=3 / np.sqrt(2 * 60))
    assert {one.pixels for one in found} == {SHAPE[0] * SHAPE[1]}
    assert found[0].said == pytest.approx(0.16)


def test_a_sigma_that_is_wrong_by_one_per_cent_is_within_the_error():
    """Noise of 1.01 sigma: the estimate is off by 2 % of the variance; of four maps the scatter is half of one's."""
    rng = np.random.default_rng(5)
    maps = [place(rng, 1.01 * rng.normal(size=SHAPE)) for _ in range(4)]
    found = noise_left(maps, systematic=0.0, phase_noise_rad=0.0)
    assert abs(found.found - exact()) <= 2 * found.error
    assert found.error > 0.02 * abs(1 - 2 * KERNEL[2, 2])


def test_what_is_systematic_counts_as_height_and_makes_the_estimate_uncertain():
    """Half of the variance is systematic: of the other half the same share is left."""
    rng = np.random.default_rng(6)
    maps = [place(rng, np.sqrt(0.5) * rng.normal(size=SHAPE)) for _ in range(4)]
    sure = noise_left(maps, systematic=0.0, phase_noise_rad=0.0)
    found = noise_left(maps, systematic=0.5, phase_noise_rad=0.0)
    taken = np.mean(((smoothed(BUMPS_NM) - BUMPS_NM) / SIGMA_NM) ** 2)
    assert found.found == pytest.approx(taken / 0.5 + np.sum(KERNEL**2), abs=0.05)
    assert found.error > 10 * sure.error
    assert noise_left(maps, systematic=0.0, phase_noise_rad=0.3).error > 3 * sure.error


def test_pixels_that_are_not_used_do_not_count():
    rng = np.random.default_rng(7)
    one = place(rng, rng.normal(size=SHAPE))
    wanted = noise_left([one], systematic=0.0, phase_noise_rad=0.0)
    blind = np.zeros(SHAPE, bool)
    wild = Place(*(np.full(SHAPE, 1e9),) * 4, blind)
    assert noise_left([one, wild], systematic=0.0, phase_noise_rad=0.0) == wanted
    assert noise_left([wild], systematic=0.0, phase_noise_rad=0.0) is None
    few = blind.copy()
    few[:16, :96] = True  # six blocks
    assert noise_left([replace(one, used=few)], systematic=0.0, phase_noise_rad=0.0) is None
    assert noise_left([one], systematic=1.0, phase_noise_rad=0.0) is None


@pytest.mark.parametrize(
    ("ratio", "error", "shared", "factor"),
    [
        (1.5, 0.3, False, 1.0),  # within two errors of what was said
        (4.0, 0.3, False, 2.0),
        (4.0, 0.3, True, 2.0),
        (0.25, 0.05, False, 0.5),
        (0.25, 0.05, True, 1.0),  # shared noise: the probe finds too little
        (0.25, 0.2, False, 1.0),
        (-0.5, 0.3, False, 1.0),  # less than nothing is left: sigma is too large, the estimate says nothing
    ],
)
def test_sigma_is_scaled_where_the_estimate_is_surer_than_the_gap(ratio, error, shared, factor):
    assert NoiseLeft(0.1, 0.02, 0.1, ratio, error, 1000).factor(shared=shared) == pytest.approx(factor)


def test_a_part_where_much_is_left_does_not_decide_for_the_rest():
    """A quarter of the map is said to keep 4 times its noise, wrongly; the rest is right: a mean would halve all sigmas."""
    rng = np.random.default_rng(9)
    maps = [place(rng, rng.normal(size=SHAPE), stated=np.sqrt(exact())) for _ in range(4)]
    maps[0] = replace(maps[0], relative=np.full(SHAPE, 2.0))
    left = noise_left(maps, systematic=0.0, phase_noise_rad=0.0)
    assert left.found / left.said < 0.5
    assert left.ratio == pytest.approx(0.75 + 0.25 * exact() / 4, abs=2 * left.ratio_error)
    assert left.factor(shared=False) > 0.8


def test_a_network_helps_where_less_than_all_noise_is_left():
    assert NoiseLeft(0.99, 0.1, 0.1, 9.9, 1.0, 1000).helps
    assert not NoiseLeft(1.0, 0.1, 0.1, 10.0, 1.0, 1000).helps
