"""Blocks that a mask cuts: what their pixels together lie above the centre, and surfaces and slopes at such rims."""

from __future__ import annotations

import numpy as np
import pytest
from test_refine import frames_of, model_of, surface_of, turns_of

from cpikan.psi.refine.closed_form import ClosedForm, fit_closed_form, fitted_products
from cpikan.psi.refine.coarse import CoarseHeights
from cpikan.psi.refine.field import FittedSurface, measuring_surface
from cpikan.psi.refine.footprint import Derivatives, MeanPixels, PhasorPixels
from cpikan.psi.refine.slopes import SlopeMaps
from cpikan.psi.refine.unwrapped import UnwrappedBlocks, UnwrappedRows

PLACE = np.stack(np.indices((8, 8)) - 3.5).reshape(2, 64)
NM_PER_TURN = np.array([300.0, 320.0])


def drawn(seed: int) -> tuple[np.ndarray, Derivatives, np.ndarray]:
    """Pixels (5, 7, 64) of blocks, derivatives of a surface there, and its heights at the pixels above the centre."""
    rng = np.random.default_rng(seed)
    here = rng.random((5, 7, 64)) < rng.uniform(0.2, 1, (5, 7, 1))
    here[..., 0] = True
    there = Derivatives(rng.normal(0, 10, (2, 5, 7)), rng.normal(0, 0.5, (3, 5, 7)))
    y, x = PLACE
    by_y, by_x, mixed = there.second[..., None]
    height = there.gradient[0][..., None] * y + there.gradient[1][..., None] * x
    return here, there, height + by_y * y**2 / 2 + by_x * x**2 / 2 + mixed * y * x


def test_means_of_quadratics_are_exact():
    here, there, height = drawn(0)
    weight = here * np.random.default_rng(1).uniform(0.5, 2, here.shape)
    y, x = PLACE
    total = weight.sum(-1)
    moments = [(weight * part).sum(-1) / total for part in (y, x, y * y, x * x, y * x)]
    found = MeanPixels(np.stack(moments[:2]), np.stack(moments[2:])).shift_nm(there)
    assert np.abs(found[0] - (weight * height).sum(-1) / total).max() < 1e-12


def test_phases_of_summed_phasors_are_exact():
    """Against a plain sum; recurrences of some 64 products round to 1e-14 of a phasor."""
    here, there, height = drawn(2)
    bits = (here.astype(np.uint64) << np.arange(64, dtype=np.uint64)).sum(-1, dtype=np.uint64)
    centroid = np.stack([(here * part).sum(-1) / here.sum(-1) for part in PLACE])
    found = PhasorPixels(bits, centroid, NM_PER_TURN).shift_nm(there)
    for nm, one in zip(NM_PER_TURN, found, strict=True):
        plain = np.angle((here * np.exp(2j * np.pi * height / nm)).sum(-1)) * nm / (2 * np.pi)
        assert np.abs(one - plain).max() < 1e-9
    # a centroid that weights moved takes the slope along
    moved = PhasorPixels(bits, centroid + 0.1, NM_PER_TURN).shift_nm(there)
    assert np.abs(moved - found - 0.1 * there.gradient.sum(axis=0)).max() < 1e-9


def test_nothing_is_moved_where_nothing_is_known():
    there = drawn(3)[1]
    there.gradient[:, 0] = np.nan
    bits = np.full((5, 7), 2**64 - 1, np.uint64)
    bits[1] = 0
    zero = np.zeros((2, 5, 7))
    for footprint in (PhasorPixels(bits, zero, NM_PER_TURN), MeanPixels(zero, np.zeros((3, 5, 7)))):
        assert not footprint.shift_nm(there)[:, 0].any()
    assert not PhasorPixels(bits, zero, NM_PER_TURN).shift_nm(there)[:, 1].any()


def bowl(shape: tuple[int, int]) -> np.ndarray:
    """A bowl and a tilt, (4, H, W): height, slopes and the sum of the second derivatives per pixel."""
    y, x = np.indices(shape) * 2 / np.array(shape)[:, None, None] - 1
    dy, dx = 2 / shape[0], 2 / shape[1]
    height = 3000 * (x**2 + y**2 - 0.7) + 1500 * x * y + 7 / dy * y - 4 / dx * x
    bend = np.full(shape, 6000 * (dy**2 + dx**2))
    return np.stack([height, (6000 * y + 1500 * x) * dy + 7, (6000 * x + 1500 * y) * dx - 4, bend])


def disc(shape: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(shape)
    return np.hypot(y - shape[0] / 2 + 0.7, x - shape[1] / 2) < min(shape) / 2 - 3


def one_wave_surface(turns: np.ndarray, inside: np.ndarray, noise_rad: float, nm_per_turn: float) -> FittedSurface:
    order = np.rint(turns)
    phase = np.where(inside, (turns - order) * 2 * np.pi, np.nan).astype(np.float32)
    sigma = np.where(inside, noise_rad, np.nan).astype(np.float32)
    blocks = UnwrappedBlocks.empty(turns.shape, 1)
    blocks.add(UnwrappedRows(phase, sigma, order.astype(np.int32), inside.astype(np.int32)), 0)
    return measuring_surface(blocks.coarse(nm_per_turn, np.zeros(2, int), np.array([False, True])))


@pytest.mark.parametrize("shape", [(150, 200), (200, 200)])
def test_a_quadratic_comes_out_exactly_where_a_mask_cuts_blocks(shape):
    """No noise. Without the blocks that are cut the first fit is the surface but for a constant; the others follow.

    Blocks that lack single pixels by chance of the rim are left in the first fit, up to 0.4 pixels off: of slopes of up to
    70 nm per pixel; two rounds and more leave less than a thousandth of those 30 nm.
    """
    truth, nm = bowl(shape)[0], 316.4
    inside = disc(shape) if shape[0] == shape[1] else np.ones(shape, bool)
    surface = one_wave_surface(truth / nm, inside, 1e-3, nm)
    found = surface.rows(0, shape[0], surface.sigma_nm()).height_nm
    assert np.abs(found - truth)[inside].max() < 0.03


@pytest.mark.parametrize(("shape", "masked"), [((150, 200), False), ((149, 203), False), ((200, 200), True)])
@pytest.mark.parametrize("waves", [1, 4])
def test_slopes_and_heights_at_rims_lie_within_their_sigmas(shape, masked, waves):
    """Pooled over four draws; one tile each of 36 coefficients, so the share within two sigmas scatters by some per cent."""
    truth, noise = bowl(shape), 0.1
    inside = disc(shape) if masked else np.ones(shape, bool)
    model, hits, rim = model_of(noise, shape), [], []
    for seed in range(4):
        if waves == 1:
            # unwrapped already: slopes are below 0.3 turns per pixel
            draw = np.random.default_rng(seed).normal(0, noise / (2 * np.pi), shape)
            surface = one_wave_surface(truth[0] / 316.4 + draw, inside, noise, 316.4)
        else:
            frames = frames_of(truth[0], noise, seed)
            frames[..., ~inside] = np.nan
            surface = surface_of(turns_of(frames, model), model, measuring=True)
        found = list(SlopeMaps(surface).rows(0, shape[0]).values())
        height = surface.rows(0, shape[0], surface.sigma_nm())
        pairs = [(height.height_nm, height.sigma_nm), *zip(found[:3], (found[3], found[3], found[4]), strict=True)]
        hits.append([(np.abs(a - t) < 2 * s)[inside].mean() for (a, s), t in zip(pairs, truth, strict=True)])
        rim.append((height.height_nm - truth[0])[-6:][inside[-6:]].mean() / height.sigma_nm[-6:][inside[-6:]].mean())
    assert (np.mean(hits, axis=0) > 0.9).all()
    assert abs(np.mean(rim)) < 1  # without a bias: half a sigma of a mean over four, twice


def flat(height: np.ndarray) -> CoarseHeights:
    """Blocks of whole pixels with a sigma of one, as the coarse heights of one wavelength."""
    zero = np.zeros((2, *height.shape))
    footprint = MeanPixels(zero, np.zeros((3, *height.shape)))
    one = np.ones(height.shape)
    shape = (8 * height.shape[0], 8 * height.shape[1])
    return CoarseHeights(shape, height, one, footprint, height[None] / 300, one[None], np.array([300.0]))


def test_residuals_of_neighbours_lack_what_the_fit_follows():
    """White noise: the mean product of residuals of neighbours is minus the covariance of the fit, over 60 tiles.

    A tile has a thousand pairs each way, so their means are good to 1 / sqrt(60 * 1000) = 0.4 %; Tukey's weights take off
    some of the 3 to 14 % that there are.
    """
    products: list[list[float]] = []
    expected: list[list[float]] = []
    rng = np.random.default_rng(0)
    for _ in range(60):
        closed: ClosedForm = fit_closed_form(flat(rng.normal(size=(32, 32))))
        rest = closed.residual[0].numpy()
        products.append([(rest[1:] * rest[:-1]).mean(), (rest[:, 1:] * rest[:, :-1]).mean()])
        followed = fitted_products(closed)
        expected.append([followed[0, :-1].mean(), followed[1, :, :-1].mean()])
    assert np.allclose(-np.mean(products, axis=0), np.mean(expected, axis=0), atol=0.012)
    assert (np.mean(expected, axis=0) > 0.02).all()
