"""Components joined by the background of the whole frame, against surfaces and offsets that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import eval_jacobi

from cpikan.psi.refine import joining
from cpikan.psi.refine.background import Levels, basis, exponents, fit_levels
from cpikan.psi.refine.background_cells import Frame, Parts, cut_cells
from cpikan.psi.refine.frame_joining import decide, join_over_frame
from cpikan.psi.refine.joining import Joined, join_components
from cpikan.psi.refine.unwrapped import UnwrappedBlocks

SHAPE = (56, 75)  # blocks: 450 x 600 pixels
SIGMA = 0.05 / 8 / (2 * np.pi)  # turns, of a block of 64 pixels with 0.05 rad each
GAP = 16  # blocks: 128 pixels, as 2000 of 9344


def zernike(rng: np.random.Generator, order: int = 8, rms: float = 3.0) -> np.ndarray:
    """Draw a surface of random Zernike polynomials up to a radial order, the frame within the unit circle, in turns."""
    y, x = ((np.arange(n) + 0.5 - n / 2) / np.hypot(*SHAPE) * 2 for n in SHAPE)
    radius, angle = np.hypot(y[:, None], x), np.arctan2(y[:, None], x)
    total = np.zeros(SHAPE)
    for n in range(1, order + 1):
        for m in range(-n, n + 1, 2):
            radial = radius ** abs(m) * eval_jacobi((n - abs(m)) // 2, 0, abs(m), 2 * radius**2 - 1)
            total += rng.normal() * radial * (np.cos(m * angle) if m >= 0 else np.sin(-m * angle))
    return total / total.std() * rms


def smoothed(rng: np.random.Generator, length: float, rms: float = 1.0) -> np.ndarray:
    """Draw white noise smoothed by a Gaussian of ``length`` blocks, in turns."""
    wide = int(4 * length)
    whole = ndimage.gaussian_filter(rng.normal(size=[n + 2 * wide for n in SHAPE]), length)
    cut = whole[wide:-wide, wide:-wide]
    return np.asarray(cut / cut.std() * rms)


def blocks_of(turns: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> UnwrappedBlocks:
    """Make whole blocks, as unwrapping leaves them: components by falling size."""
    shape = (8 * SHAPE[0], 8 * SHAPE[1])
    noisy = np.where(label > 0, turns + rng.normal(0, SIGMA, SHAPE), np.nan)
    pixels = 64 * np.bincount(label.ravel())
    sigma = np.where(label > 0, SIGMA, np.inf)
    return UnwrappedBlocks(
        shape, label.astype(np.int32), noisy, sigma, np.zeros((2, *SHAPE)), np.zeros((3, *SHAPE)), pixels
    )


def alone(label: np.ndarray) -> Joined:
    numbers = np.arange(label.max() + 1)
    return Joined(0 * numbers, numbers, numbers < 0, 0, 0, 0)


def trench(at: int = 24) -> np.ndarray:
    """Label two sides of a trench across the frame."""
    label = np.zeros(SHAPE, np.int32)
    label[:, :at], label[:, at + GAP :] = 2, 1
    return label


def test_means_of_polynomials_belong_to_cells_of_any_shape():
    """A polynomial on pixels, its cells cut anyhow by parts: what the coefficients say is their mean, to rounding."""
    rng = np.random.default_rng(0)
    degree = 6
    factors = rng.normal(size=len(exponents(degree)))
    frame = Frame(SHAPE)
    y, x = np.meshgrid(*(frame.scaled(k, (np.arange(8 * n) + 0.5) / 8) for k, n in enumerate(SHAPE)), indexing="ij")
    pixels = basis(np.stack([y, x], axis=-1).reshape(-1, 2), degree) @ factors
    value = pixels.reshape(SHAPE[0], 8, SHAPE[1], 8).mean(axis=(1, 3))
    part = rng.integers(0, 4, SHAPE).astype(np.int32)
    cells = cut_cells(Parts(value, rng.uniform(0.5, 2, SHAPE), part), 5, degree, 0.0)
    assert cells.parts == 3
    assert np.abs(cells.design @ factors - cells.value).max() < 1e-12 * np.abs(value).max()
    assert (cells.sigma**-2.0).sum() > 0


@pytest.mark.parametrize("seed", range(2))
def test_a_trench_through_a_surface_of_order_eight_is_bridged(seed):
    rng = np.random.default_rng(seed)
    label, whole = trench(20 + 5 * seed), int(rng.integers(-9, 10))
    joined = join_over_frame(blocks_of(zernike(rng) + whole * (label == 2), label, rng), alone(label))
    assert (joined.components, joined.over_frame) == (1, 1)
    assert np.array_equal(joined.level, [0, 0, -whole])
    assert np.array_equal(joined.moved, [False, False, True])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["step", "rough"])
def test_a_hidden_step_or_a_rough_surface_stays_apart(kind, seed):
    """A step of no whole turn; a surface that turns over twice within the trench."""
    rng = np.random.default_rng(seed)
    label = trench()
    turns = zernike(rng) + rng.uniform(0.1, 0.5) * (label == 2) if kind == "step" else smoothed(rng, 4.0)
    joined = join_over_frame(blocks_of(turns, label, rng), alone(label))
    assert joined.components == 2
    assert joined.refused == int(kind == "step")


def test_the_sigma_of_a_level_is_what_it_scatters_by():
    """Smooth surfaces of three kinds, a trench of a fifth of the frame."""
    scores = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        turns = [zernike(rng), smoothed(rng, 25.0), smoothed(rng, 12.0)][seed % 3]
        label = trench(15 + 4 * seed)
        blocks = blocks_of(turns, label, rng)
        parts = Parts(blocks.turns, blocks.sigma_turns, label)
        levels = fit_levels(cut_cells(parts, 2, 20, 5e-4))
        assert levels is not None
        share = np.exp(levels.log_share)
        mean = share @ levels.mean[:, 0]
        variance = share @ (levels.covariance[:, 0, 0] + (levels.mean[:, 0] - mean) ** 2) + 0.005**2
        assert variance < 0.06**2
        scores.append(mean / np.sqrt(variance))
    # the rms of 6 scores is 1 +- 0.3; priors rougher than the surfaces make sigmas too large, never too small
    assert 0.1 < np.sqrt(np.mean(np.square(scores))) < 1.6


def test_islands_all_over_the_frame_are_joined_together():
    """24 islands in a hole that takes half of the frame, none next to the rest."""
    rng = np.random.default_rng(7)
    label = np.ones(SHAPE, np.int32)
    label[6:-6, 8:-8] = 0
    corners = [(y, x) for y in range(9, 42, 9) for x in range(11, 60, 9)]
    for k, (y, x) in enumerate(corners):
        label[y : y + 5, x : x + 5] = 2 + k
    whole = np.r_[0, 0, rng.integers(-9, 10, len(corners))]
    joined = join_over_frame(blocks_of(zernike(rng) + whole[label], label, rng), alone(label))
    assert joined.components == 1
    assert np.array_equal(joined.level[1:], -whole[1:])


def test_what_lies_off_the_largest_is_joined_among_itself():
    """Levels of parts 1 and 2 are 0.3 turns off, on the same level up to whole turns; part 3 is unknown."""
    mean, covariance = np.array([[0.3, 4.3, 0.0]]), np.diag([1e-4, 1e-4, 1.0])[None]
    covariance[0, 0, 1] = covariance[0, 1, 0] = 0.9e-4
    levels = Levels(mean, covariance, np.zeros(1), 0.0)
    free = np.zeros((4, 4), bool)
    found = decide(levels, free)
    assert np.array_equal(found.anchor, [0, 1, 1, 3])
    assert np.array_equal(found.whole, [0, 0, -4, 0])
    apart = free.copy()
    apart[1, 2] = apart[2, 1] = True
    assert np.array_equal(decide(levels, apart).anchor, np.arange(4))


def test_what_was_decided_tells_of_the_rest():
    """The level of part 2 is known to 0.3 turns, and to 0.046 once that of part 1 is."""
    covariance = np.array([[[2.5e-3, 1.49e-2], [1.49e-2, 9e-2]]])
    levels = Levels(np.array([[0.02, 1.2]]), covariance, np.zeros(1), 0.0)
    found = decide(levels, np.zeros((3, 3), bool))
    assert np.array_equal(found.whole, [0, 0, -1])
    assert np.array_equal(found.anchor, [0, 0, 0])


def test_pairs_beyond_the_nearest_are_looked_at_too(monkeypatch):
    """9 pieces of 17 x 23 blocks with 12 pairs of neighbours, of which the limit allows 3: joined pairs are skipped."""
    monkeypatch.setattr(joining, "_PAIRS", 3)
    rng = np.random.default_rng(3)
    label = np.zeros(SHAPE, np.int32)
    for k in range(9):
        y, x = 19 * (k // 3), 26 * (k % 3)
        label[y : y + 17, x : x + 23] = 1 + k
    whole = np.r_[0, 0, rng.integers(-9, 10, 8)]
    blocks = blocks_of(zernike(rng, order=2) + whole[label], label, rng)
    few, every = join_components(blocks), join_components(blocks, every=True)
    assert few.pairs == 3 < every.pairs < 12
    assert few.components > every.components == 1
    assert np.array_equal(every.level[1:], -whole[1:])
