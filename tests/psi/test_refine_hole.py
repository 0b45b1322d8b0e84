"""What is guessed in holes, against surfaces that are known."""

from __future__ import annotations

import numpy as np
import pytest
from test_refine_frame import SHAPE, smoothed, zernike

from cpikan.psi.refine.hole_guess import HoleGuess, Surroundings, guess_hole

WAVE_NM = 632.8
NOISE_NM = 0.05 * WAVE_NM / (4 * np.pi)


def holes(kind: str) -> np.ndarray:
    y, x = np.indices(SHAPE)
    return (np.hypot(y - 28, x - 40) < 8) if kind == "island" else (x >= 28) & (x < 44)


def guessed(surface_nm: np.ndarray, hole: np.ndarray, rng: np.random.Generator) -> HoleGuess:
    """Guess from the blocks around, each the mean of 64 pixels."""
    measured = np.where(hole, np.nan, surface_nm + rng.normal(0, NOISE_NM / 8, SHAPE))
    found = guess_hole(Surroundings(measured, NOISE_NM, hole))
    assert found is not None
    return found


def at_blocks(found: HoleGuess) -> tuple[np.ndarray, np.ndarray]:
    """Average the pixels of every block."""
    rows, columns = found.shape
    height, sigma = found.rows(slice(0, 8 * rows), slice(0, 8 * columns))
    return tuple(a.reshape(rows, 8, columns, 8).mean(axis=(1, 3)) for a in (height, sigma))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["island", "trench"])
def test_a_surface_of_order_eight_goes_on_through_a_fifth_of_the_frame(kind):
    """Its rim has the noise of blocks, 0.3 nm, which a membrane cannot make larger."""
    rng = np.random.default_rng(0)
    surface, hole = zernike(rng) * WAVE_NM / 2, holes(kind)
    height, sigma = at_blocks(guessed(surface, hole, rng))
    assert np.abs(height - surface)[hole].max() < 3 * NOISE_NM / 8
    assert sigma[hole].max() < NOISE_NM / 2  # of a single pixel


def test_sigma_is_what_the_guess_is_off_by_and_grows_inwards():
    """A hole of 16 blocks in a window of 48, as holes are given; surfaces that turn over within it."""
    scores, inside, rim = [], [], []
    window = np.s_[4:52, 16:64]
    hole = np.zeros(SHAPE, bool)
    hole[window] = holes("island")[window]
    y, x = np.indices(SHAPE)
    radius = np.hypot(y - 28, x - 40)[window]
    mine = hole[window]
    for seed in range(6):
        rng = np.random.default_rng(seed)
        surface = (smoothed(rng, (6.0, 9.0)[seed % 2]) * WAVE_NM / 2)[window]
        measured = np.where(mine, np.nan, surface + rng.normal(0, NOISE_NM / 8, surface.shape))
        found = guess_hole(Surroundings(measured, NOISE_NM, mine))
        assert found is not None
        height, sigma = at_blocks(found)
        scores.append(float(np.sqrt(np.mean(((height - surface) / sigma)[mine] ** 2))))
        inside.append(sigma[radius < 2].mean())
        rim.append(sigma[mine & (radius >= 7)].mean())
    # the errors of one hole are one or two numbers: the rms of six holes is good to a third
    assert 0.2 < np.sqrt(np.mean(np.square(scores))) < 1.7
    assert np.mean(inside) > 1.5 * np.mean(rim)


def test_the_guess_begins_where_the_measured_heights_end():
    """Ripples of eight blocks that no polynomial of degree 20 follows: the rim does, and sigma says how large they are."""
    rng = np.random.default_rng(1)
    ripple = 10 * np.sin(2 * np.pi * np.indices(SHAPE)[0] / 8)
    surface, hole = zernike(rng, 4) * WAVE_NM / 2 + ripple, holes("trench")
    height, sigma = at_blocks(guessed(surface, hole, rng))
    first = np.zeros_like(hole)
    first[:, 28] = True
    # a ripple of wave number k falls by exp(-k) a block into the membrane: by 0.54 at this one
    assert np.corrcoef((height - surface + ripple)[first], ripple[first])[0, 1] > 0.95
    assert np.sqrt(np.mean(sigma[hole] ** 2)) == pytest.approx(10 / np.sqrt(2), rel=0.4)


def test_too_little_around_is_no_guess():
    hole = np.zeros((8, 8), bool)
    hole[2:6, 2:6] = True
    assert guess_hole(Surroundings(np.full((8, 8), np.nan), 1.0, hole)) is None
    few = np.full((8, 8), np.nan)
    few[0] = 1.0
    assert guess_hole(Surroundings(few, 1.0, hole)) is None
