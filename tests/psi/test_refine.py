"""Refiners: sums over blocks, coarse heights, surfaces, orders, against what was simulated."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cpikan.psi.kernels.arguments import pack_search
from cpikan.psi.kernels.cpu import DemodulationKernels
from cpikan.psi.kernels.model import (
    DemodulatedRows,
    Demodulation,
    HeightRows,
    OrderSearch,
    PixelModel,
    empty_demodulated,
    empty_rows,
)
from cpikan.psi.kernels.statistics import COLUMNS
from cpikan.psi.model.flags import Flag
from cpikan.psi.model.schemes import LEAST_SQUARES, phasor_weights
from cpikan.psi.refine import orders
from cpikan.psi.refine.ambiguity import is_doubtful
from cpikan.psi.refine.blocks import BlockSums, Empty
from cpikan.psi.refine.closed_form import posterior_sigma
from cpikan.psi.refine.coarse import CoarseHeights, coarse_heights
from cpikan.psi.refine.field import FittedSurface, guiding_surface, measuring_surface
from cpikan.psi.refine.footprint import PhasorPixels
from cpikan.psi.refine.protocol import BLOCK_PX, NoSurface, Refiner, SurfaceRows
from cpikan.storage.scratch import Spill
from small_stacks import STEPS_DEG, WAVES_NM

HALF_NM = WAVES_NM[0] / 2
SIZE = 200
B = 100.0
REFINED, AMBIGUOUS = int(Flag.REFINED), int(Flag.AMBIGUOUS)


def model_of(noise_rad: float, shape: tuple[int, int], tilt: float = 0.0) -> PixelModel:
    """Four frames at quarter turns; ``noise_rad`` is that of the phase, ``tilt`` (turns per pixel) of the second wavelength."""
    many = len(WAVES_NM)
    noise = np.tile([2 * (noise_rad * B) ** 2, 0.0], (many, 1))
    tilts = np.zeros((many, 2))
    tilts[1] = tilt
    centre = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    window = (-15000.0, 30000.0)
    search = OrderSearch(
        (0, 1, 2, 3),
        WAVES_NM[0] / np.array(WAVES_NM),
        HALF_NM,
        np.zeros(many),
        tilts,
        centre,
        *window,
        *window,
        40.0,
    )
    return PixelModel(Demodulation.of_weights([phasor_weights(LEAST_SQUARES, STEPS_DEG)] * many, noise), search)


def frames_of(height: np.ndarray, noise_rad: float, seed: int = 0, missing: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    phase = 4 * np.pi * height / np.array(WAVES_NM)[:, None, None]
    frames = 128 + B * np.cos(phase[:, None] + np.radians(STEPS_DEG)[:, None, None])
    frames += rng.normal(0, math.sqrt(2) * noise_rad * B, frames.shape)
    frames[:, :, rng.random(height.shape) < missing] = np.nan
    return frames.astype(np.float32)


def turns_of(frames: np.ndarray, model: PixelModel, threads: int = 2) -> DemodulatedRows:
    kernels = DemodulationKernels(model, threads)
    rows = kernels.demodulate(frames, 0, None, empty_demodulated(len(frames), *frames.shape[2:]))
    kernels.close()
    return rows


def bowl(size: int = SIZE) -> np.ndarray:
    y, x = np.mgrid[:size, :size] * 2.0 / size - 1
    return 6000 * (x**2 + y**2 - 0.7) + 1500 * x * y


def refined(rows: DemodulatedRows, model: PixelModel, surface: SurfaceRows | None = None) -> HeightRows:
    assert model.search is not None
    count, limits = len(rows.flags), pack_search(model.search)
    given = NoSurface().surface(rows, 0, slice(0, count)) if surface is None else surface
    choice = orders.icm(rows, orders.own_orders(rows, 0, None), given, limits)
    out = HeightRows(*empty_rows(*rows.flags.shape))
    orders.form_heights(rows, choice, limits, slice(0, count), out)
    return out


def surface_of(rows: DemodulatedRows, model: PixelModel, *, measuring: bool = False) -> FittedSurface:
    assert model.search is not None
    sums = BlockSums.zeros(len(rows.phase_cycles), rows.flags.shape)
    sums.add(rows, 0)
    return (measuring_surface if measuring else guiding_surface)(coarse_heights(sums, model.search))


def wrong(height: np.ndarray, truth: np.ndarray) -> int:
    return int((np.abs(height - truth) > HALF_NM / 2).sum())


@pytest.fixture(scope="module")
def noisy() -> tuple[DemodulatedRows, PixelModel]:
    model = model_of(0.25, (SIZE, SIZE))
    return turns_of(frames_of(bowl(), 0.25), model), model


@pytest.mark.parametrize("tilt", [0.0, 1e-5])
def test_the_pixels_own_heights_are_those_of_the_pixel_pass(tilt):
    model = model_of(0.25, (64, SIZE), tilt)
    frames = frames_of(bowl()[:64], 0.25, missing=0.1)
    kernels, table = DemodulationKernels(model, 2), np.empty((64, COLUMNS))
    expected = kernels.heights(frames, 0, None, HeightRows(*empty_rows(64, SIZE)), table)
    rows = turns_of(frames, model, threads=1)
    kernels.close()
    for name in HeightRows._fields:
        assert np.array_equal(getattr(rows, name), getattr(expected, name), equal_nan=True), name


def test_orders_that_are_not_changed_leave_every_bit(noisy):
    rows, model = noisy
    limits = pack_search(model.search)
    choice = orders.own_orders(rows, 0, np.zeros((4, 4), bool))
    out = HeightRows(*empty_rows(SIZE, SIZE))
    orders.form_heights(rows, choice, limits, slice(0, SIZE), out)
    for name in HeightRows._fields:
        assert np.array_equal(getattr(out, name), getattr(rows, name), equal_nan=True)


def test_block_sums_are_plain_sums_however_the_rows_come(noisy):
    rows, _ = noisy
    whole, pieces = (BlockSums.zeros(4, (SIZE, SIZE)) for _ in range(2))
    whole.add(rows, 0)
    for first in range(0, SIZE, 37):
        pieces.add(rows.part(first, first + 37), first)
    for name in ("phasor", "weight", "moment", "pixels", "valid", "doubtful"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name)), name
    block = (slice(None), slice(8, 16), slice(16, 24))
    phasor = rows.weight[block].astype(float) * np.exp(2j * np.pi * rows.phase_cycles[block].astype(float))
    assert np.allclose(whole.phasor[:, 1, 2], phasor.sum(axis=(1, 2)), rtol=1e-5)
    bits = (whole.pixels[1, 2] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.array_equal(bits.reshape(8, 8) > 0, (rows.flags[block[1:]] & int(Flag.INVALID)) == 0)
    share = whole.doubtful_share()
    assert share[0, 0] == pytest.approx(((rows.flags[:64, :64] & AMBIGUOUS) > 0).mean())


def test_coarse_heights_are_as_exact_as_their_sigma_says():
    """On gentle slopes; 625 blocks give the rms to 3 %."""
    model = model_of(0.25, (SIZE, SIZE))
    rows = turns_of(frames_of(bowl() / 10, 0.25), model)
    sums = BlockSums.zeros(4, (SIZE, SIZE))
    sums.add(rows, 0)
    coarse = coarse_heights(sums, model.search)
    truth = (bowl() / 10).reshape(25, 8, 25, 8).mean(axis=(1, 3))
    score = ((coarse.height_nm - truth) / coarse.sigma_nm)[coarse.known]
    assert coarse.known.all()
    assert np.sqrt(np.mean(score**2)) == pytest.approx(1, abs=0.15)


def test_hybrid_decides_the_orders_that_pixels_get_wrong(noisy):
    """At 0.25 rad a pixel in a hundred is wrong; the target is a twentieth of that."""
    rows, model = noisy
    fitted = surface_of(rows, model)
    assert isinstance(fitted, Refiner)
    out = refined(rows, model, fitted.surface(rows, 0, slice(0, SIZE)))
    before, after = wrong(rows.height_nm, bowl()), wrong(out.height_nm, bowl())
    assert before > 0.005 * SIZE**2
    assert after <= before / 20
    changed = rows.height_nm != out.height_nm
    assert np.array_equal(changed, (out.flags & REFINED) > 0)
    # a changed height is off by whole orders, give or take what the other wavelengths correct
    assert np.abs((out.height_nm - rows.height_nm)[changed]).min() > HALF_NM / 2
    assert ((out.flags & AMBIGUOUS) > 0).mean() < 0.01 * ((rows.flags & AMBIGUOUS) > 0).mean()


def test_steps_of_120_nm_and_of_more_than_an_order_are_kept():
    """Both kinds of steps with a bowl under them; the tall ones have straight edges, as mesas do."""
    truth = bowl() / 2
    y, x = np.mgrid[:SIZE, :SIZE]
    truth += 120.0 * ((x // 32 + y // 32) % 2)
    truth[60:120, 70:150] += 3700
    model = model_of(0.15, (SIZE, SIZE))
    rows = turns_of(frames_of(truth, 0.15), model)
    out = refined(rows, model, surface_of(rows, model).surface(rows, 0, slice(0, SIZE)))
    assert wrong(out.height_nm, truth) <= wrong(rows.height_nm, truth)
    assert wrong(out.height_nm, truth) <= 2e-4 * truth.size
    # the noise of a height is 120 nm * 0.15 / ... : the mean over both sides of an edge of 32 pixels shows the step
    jump = (out.height_nm - bowl() / 2)[0:32, 32:64].mean() - (out.height_nm - bowl() / 2)[0:32, 0:32].mean()
    assert jump == pytest.approx(120, abs=6)


def test_a_pixel_that_is_sure_is_not_overruled():
    """A single pixel three orders up, without noise: neighbours and surface disagree, its phases decide."""
    truth = bowl()
    truth[100, 100] += 3 * HALF_NM + 300
    model = model_of(0.02, (SIZE, SIZE))
    rows = turns_of(frames_of(truth, 0.02), model)
    out = refined(rows, model, surface_of(rows, model).surface(rows, 0, slice(0, SIZE)))
    assert wrong(out.height_nm, truth) == 0
    assert not (out.flags & REFINED).any()


def test_a_wrong_surface_cannot_do_more_than_its_share(noisy):
    """A surface an order off, sure of itself: the neighbours' own agreement outweighs its cap."""
    rows, model = noisy
    lie = SurfaceRows((bowl() + HALF_NM).astype(np.float32), np.full((SIZE, SIZE), 10.0, np.float32))
    out = refined(rows, model, lie)
    assert wrong(out.height_nm, bowl()) < wrong(rows.height_nm, bowl())


def test_heavy_noise_and_missing_pixels():
    model = model_of(0.4, (SIZE, SIZE))
    rows = turns_of(frames_of(bowl(), 0.4, missing=0.4), model)
    out = refined(rows, model, surface_of(rows, model).surface(rows, 0, slice(0, SIZE)))
    assert np.array_equal(np.isnan(out.height_nm), np.isnan(rows.height_nm))
    assert wrong(rows.height_nm, bowl()) > 0.05 * SIZE**2
    assert wrong(out.height_nm, bowl()) < 1e-3 * SIZE**2


def test_measured_surface_slopes_and_sigmas(noisy):
    """Value, slopes and curvature within two predicted sigmas for 95 % of the blocks; the noise of blocks is white."""
    rows, model = noisy
    fitted = surface_of(rows, model, measuring=True)
    y, x = (np.mgrid[:25, :25] * 8 + 3.5) * 2 / SIZE - 1  # pixel k of the bowl lies at k
    per_px = 2 / SIZE
    truth = {
        "y": (12000 * y + 1500 * x) * per_px,
        "x": (12000 * x + 1500 * y) * per_px,
        "curvature": np.full((25, 25), 24000 * per_px**2),
    }
    gradient, curvature = fitted.slopes()
    sigma = posterior_sigma(fitted.closed, ("slope_y", "slope_x", "curvature"))
    sigma /= np.array([BLOCK_PX, BLOCK_PX, BLOCK_PX**2], float)[:, None, None]
    for found, s, expected in zip((*gradient, curvature), sigma, truth.values(), strict=True):
        assert (np.abs(found - expected) < 2 * s).mean() > 0.9
    height = fitted.rows(0, SIZE, fitted.sigma_nm())
    error = height.height_nm - bowl()
    assert (np.abs(error) < 2 * height.sigma_nm).mean() > 0.9
    assert np.sqrt(np.mean(error**2)) < 0.1 * np.nanmedian(rows.sigma_nm)  # 64 pixels of a block, hundreds of a tile


def test_noise_free_surfaces_show_no_seams():
    """Two tiles and more: relative error 1e-4, and none larger where windows blend."""
    size = 400
    truth = bowl(size)
    model = model_of(0.01, (size, size))
    rows = turns_of(frames_of(truth, 0.0), model)
    fitted = surface_of(rows, model, measuring=True)
    found = fitted.rows(0, size, fitted.sigma_nm()).height_nm
    assert len(fitted.closed.modes) > 1
    assert np.linalg.norm(found - truth) / np.linalg.norm(truth) < 1e-4


def test_networks_are_kept_only_where_they_fit_blocks_they_have_not_seen():
    """White noise has nothing to learn: a network that follows its half of the blocks is worse on the other half."""
    model = model_of(0.25, (SIZE, SIZE))
    rng = np.random.default_rng(1)
    rough = bowl() / 3 + np.kron(rng.normal(0, 150, (25, 25)), np.ones((8, 8)))
    rows = turns_of(frames_of(rough, 0.05), model)
    fitted = surface_of(rows, model, measuring=True)
    assert fitted.networks is not None
    assert fitted.networks.above == 1
    assert fitted.networks.kept == 0


def test_tiles_without_data_stay_without_a_surface():
    frames = frames_of(bowl(400), 0.1)
    frames[:, :, :, :250] = np.nan
    model = model_of(0.1, (400, 400))
    rows = turns_of(frames, model)
    fitted = surface_of(rows, model)
    given = fitted.surface(rows, 0, slice(0, 400))
    assert np.isinf(given.sigma_nm[:, :200]).all()
    assert np.isfinite(given.sigma_nm[:, 290:]).all()
    out = refined(rows, model, given)
    assert np.array_equal(np.isnan(out.height_nm), np.isnan(rows.height_nm))


@pytest.mark.parametrize(("noise", "expected"), [(0.03, False), (0.25, True)])
def test_doubt_is_measured_on_a_subsample(noise, expected):
    model = model_of(noise, (SIZE, SIZE))
    frames = frames_of(bowl(), noise)
    position = np.argwhere(np.ones((SIZE, SIZE), bool))[::7]
    assert is_doubtful(frames[:, :, position[:, 0], position[:, 1]], position, (SIZE, SIZE), model) is expected


def test_doubt_in_one_corner_is_found():
    model = model_of(0.03, (SIZE, SIZE))
    frames = frames_of(bowl(), 0.03)
    frames[:, :, :40, :40] = frames_of(bowl(), 0.3)[:, :, :40, :40]
    position = np.argwhere(np.ones((SIZE, SIZE), bool))[::3]
    assert is_doubtful(frames[:, :, position[:, 0], position[:, 1]], position, (SIZE, SIZE), model)


def _wavy_blocks(rows: int, columns: int = 24) -> CoarseHeights:
    """Blocks of a wavy surface whose pixels lie a little off the centres, measured by two wavelengths."""
    draw, nm_per_turn = np.random.default_rng(3), np.array([2500.0, 2750.0])
    y, x = np.indices((rows, columns))
    height = 300 * np.sin(x / 9) + 200 * np.sin(y / 13) + draw.normal(0, 5, y.shape)
    turns, weight = height / nm_per_turn[:, None, None], np.full((2, *height.shape), 4e4)
    pixels = PhasorPixels(np.full(y.shape, 2**64 - 1, np.uint64), draw.normal(0, 0.1, (2, *height.shape)), nm_per_turn)
    sigma = np.full(height.shape, 5.0)
    return CoarseHeights((8 * rows, 8 * columns), height, sigma, pixels, turns - np.rint(turns), weight, nm_per_turn)


def _peak_bytes(rows: int, empty: Empty) -> int:
    """Fit a surface to an image of so many rows of blocks; the most memory of NumPy that is taken at a time."""
    coarse = _wavy_blocks(rows)
    tracemalloc.start()
    try:
        measuring_surface(coarse, networks=False, empty=empty).sigma_nm(empty)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_of_a_surface_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Arrays of blocks are files: what is left is a strip of 64 rows of blocks and 64 tiles, and some bytes for a tile."""
    _peak_bytes(96, np.empty)  # compiles
    spill = Spill(tmp_path)
    assert _peak_bytes(1600, spill.empty) < 1.2 * _peak_bytes(400, spill.empty)
    # and files change no bit
    coarse = _wavy_blocks(600)
    one, other = (measuring_surface(coarse, networks=False, empty=empty) for empty in (np.empty, spill.empty))
    assert one.sigma_nm().tobytes() == other.sigma_nm(spill.empty).tobytes()
    assert one.residual_nm.tobytes() == other.residual_nm.tobytes()
