"""One wavelength after unwrapping: blocks, offsets across gaps, components joined, patches, against what was simulated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from threadpoolctl import threadpool_limits

from cpikan.psi.refine.joining import Joined, _levels, join_components, offset_across
from cpikan.psi.refine.patches import choose, find_candidates
from cpikan.psi.refine.slopes import fit_layers
from cpikan.psi.refine.unwrapped import UnwrappedBlocks, UnwrappedRows

SHAPE = (160, 200)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]] * 2.0 / SHAPE[1] - 1
SMOOTH = 2 * X**2 + Y**2 - X * Y + 0.3 * np.sin(2 * X) * np.cos(Y)  # turns
NOISE = 0.1 / (2 * np.pi)


def rows_of(turns: np.ndarray, component: np.ndarray, noise: float = NOISE) -> UnwrappedRows:
    """As unwrapping leaves them."""
    turns = turns + np.random.default_rng(2).normal(0, noise, turns.shape)
    order = np.rint(turns)
    phase = np.where(component > 0, (turns - order) * 2 * np.pi, np.nan)
    sigma = np.where(component > 0, noise * 2 * np.pi, np.nan)
    return UnwrappedRows(
        phase.astype(np.float32), sigma.astype(np.float32), order.astype(np.int32), component.astype(np.int32)
    )


def blocks_of(rows: UnwrappedRows) -> UnwrappedBlocks:
    blocks = UnwrappedBlocks.empty(rows.order.shape, int(rows.component.max()))
    blocks.add(rows, 0)
    return blocks


ONE = np.ones(SHAPE, np.int32)


def test_blocks_are_means_with_their_sigma_however_the_rows_come():
    rows = rows_of(SMOOTH, ONE)
    blocks, pieces = blocks_of(rows), UnwrappedBlocks.empty(SHAPE, 1)
    for first in range(0, SHAPE[0], 24):
        pieces.add(rows.part(first, first + 24), first)
    for name in ("label", "turns", "sigma_turns", "offset_px", "spread_px2", "pixels"):
        assert np.array_equal(getattr(blocks, name), getattr(pieces, name)), name
    turns = rows.phase_rad / (2 * np.pi) + rows.order
    plain = turns.reshape(20, 8, 25, 8).mean(axis=(1, 3))
    assert np.abs(blocks.turns - plain).max() < 1e-6
    score = (blocks.turns - SMOOTH.reshape(20, 8, 25, 8).mean(axis=(1, 3))) / blocks.sigma_turns
    # 500 blocks give the rms to 3 %; what scatters more than its sigma by chance is given a larger one, 5 % on the mean
    assert np.sqrt(np.mean(score**2)) == pytest.approx(0.97, abs=0.1)


def test_a_block_belongs_to_its_larger_part_and_ignores_pixels_an_order_off():
    component = ONE.copy()
    component[:, 101:] = 2  # the block from 96 has five columns of one and three of two
    component[:, 99] = 0
    turns = SMOOTH + 3.0 * (component == 2)
    rows = rows_of(turns, component, 1e-4)
    rows.order[::8, ::8] += 1
    blocks = blocks_of(rows)
    assert (blocks.label[:, :13] == 1).all()
    assert (blocks.label[:, 13:] == 2).all()
    y, x = 8 * np.arange(20) + 3.5, 8 * np.arange(25) + 3.5
    centre = ndimage.map_coordinates(turns, np.meshgrid(y, x, indexing="ij"), order=1)
    inner = np.arange(25) != 12
    # of 64 pixels one, a corner, is left out: moves the mean by a 63rd of 3.5 pixels times a slope below 0.05 turns
    assert np.abs(blocks.turns - centre)[:, inner].max() < 0.01
    assert blocks.offset_px[1, :, 12] == pytest.approx(-1.8, abs=0.3)  # columns 96, 97, 98, 100
    assert np.array_equal(blocks.pixels, np.bincount(component.ravel()))


def test_the_offset_across_a_gap_is_generalised_least_squares():
    """A polynomial of second degree on both sides is free: the offset comes out to rounding, whatever the roughness."""
    y, x = (a.ravel().astype(float) for a in np.mgrid[:12, :20])
    keep = (x < 7) | (x > 12)
    y, x = y[keep], x[keep]
    other = x > 10
    turns = 0.1 * x - 0.2 * y + 0.03 * x * y + 0.01 * x**2 - 5.0 * other
    found = offset_across(np.stack([y, x], axis=1), turns, np.full(len(x), 1e-3), other)
    assert found is not None
    assert found.turns == pytest.approx(-5, abs=1e-9)
    assert found.margin > 500
    few = slice(0, 5)
    assert offset_across(np.stack([y, x], axis=1)[few], turns[few], np.ones(5), other[few]) is None


def test_the_sigma_of_an_offset_is_what_it_scatters_by():
    """Random smooth surfaces (white noise smoothed over a third of the window), a gap of a third of it, 40 draws."""
    draw, scores = np.random.default_rng(4), []
    y, x = (a.ravel() for a in np.mgrid[:18, :18])
    keep = (x < 6) | (x > 11)
    position = np.stack([y, x], axis=1)[keep].astype(float)
    for _ in range(40):
        surface = ndimage.gaussian_filter(draw.normal(size=(60, 60)), 6)[21:39, 21:39] * 20
        noisy = (surface + draw.normal(0, 0.01, surface.shape)).ravel()[keep]
        with threadpool_limits(limits=1, user_api="blas"):
            found = offset_across(position, noisy, np.full(len(noisy), 0.01), position[:, 1] > 9)
        assert found is not None
        scores.append(found.turns / found.sigma)
    # 40 scores give the rms to 11 %; a prior that is rougher than these surfaces makes sigmas too large, never too small
    assert 0.3 < np.sqrt(np.mean(np.square(scores))) < 1.3


@pytest.mark.parametrize("whole", [-7, 0, 4])
def test_components_are_joined_by_the_whole_turns_between_them(whole):
    component = ONE.copy()
    component[:, 120:] = 2
    component[:, 90:120] = 0
    joined = join_components(blocks_of(rows_of(SMOOTH + whole * (component == 2), component)))
    assert joined.components == 1
    assert np.array_equal(joined.label, [0, 1, 1])
    assert np.array_equal(joined.level, [0, 0, -whole])
    assert np.array_equal(joined.moved, [False, False, True])
    assert (joined.pairs, joined.joined, joined.refused) == (1, 1, 0)


@pytest.mark.parametrize(("step", "refused"), [(0.3, 1), (-0.5, 1), (0.02, 0)])
def test_a_step_of_no_whole_turn_is_refused(step, refused):
    component = ONE.copy()
    component[:, 100:] = 2
    component[:, 90:100] = 0
    joined = join_components(blocks_of(rows_of(SMOOTH + step * (component == 2), component)))
    assert (joined.components, joined.refused) == (1 + refused, refused)


def test_small_pieces_stay_and_are_numbered_by_size():
    component = ONE.copy()
    component[40:56, 40:56] = 0
    component[44:52, 44:52] = 3
    component[100:] = 0
    component[104:] = 2
    joined = join_components(blocks_of(rows_of(SMOOTH, component)))
    assert np.array_equal(joined.label, [0, 1, 1, 2])


def test_bridges_in_a_ring_that_do_not_close_join_nothing():
    edges = [(0.01, 1, 2, 1), (0.02, 2, 3, 1), (0.03, 1, 3, 5), (0.01, 4, 5, -2)]
    root, level, bad = _levels(edges, 6)
    assert bad == {1}
    assert np.array_equal(root, [0, 1, 1, 1, 4, 4])
    assert level[5] - level[4] == -2
    _, level, bad = _levels([(0.01, 1, 2, 1), (0.02, 2, 3, 1), (0.03, 1, 3, 2)], 6)
    assert not bad
    assert np.array_equal(level[1:4], [0, 1, 2])


def alone(blocks: UnwrappedBlocks) -> Joined:
    numbers = np.arange(len(blocks.pixels))
    return Joined(0 * numbers, numbers, numbers < 0, 0, 0, 0)


def test_every_component_has_a_surface_of_its_own():
    component = ONE.copy()
    component[:, 100:] = 2
    blocks = blocks_of(rows_of(SMOOTH + 40 * (component == 2), component))
    layers = fit_layers(blocks, alone(blocks), 300.0, measuring=True)
    found = layers.rows(32, component[32:100])
    error = found.height_nm / 300 - SMOOTH[32:100] - 40 * (component[32:100] == 2)
    assert np.isfinite(found.sigma_nm).all()
    assert np.sqrt(np.mean(error**2)) < NOISE / 3
    assert (layers.summary()["surfaces"], layers.left_out) == (2, 0)


def moved(turns: np.ndarray, surface: np.ndarray, component: np.ndarray = ONE) -> tuple[np.ndarray, int]:
    """Turns with the patches moved that are chosen, rows given in two parts."""
    parts = []
    for start, stop in ((0, 83), (83, SHAPE[0])):
        first, last = max(0, start - 1), min(SHAPE[0], stop + 1)
        inner = slice(start - first, stop - first)
        parts.append(find_candidates(turns[first:last], component[first:last], surface[start:stop], first, inner))
    index, move, count = choose(parts, SHAPE[1])
    result = turns.copy()
    result.reshape(-1)[index] += move
    return result, count


def test_patches_on_a_wrong_order_are_moved_onto_the_surface():
    """Single pixels, a patch across two parts of the rows, one at the edge; noise of 0.1 rad."""
    right = SMOOTH + np.random.default_rng(3).normal(0, NOISE, SHAPE)
    turns = right.copy()
    turns[70:95, 50:80] += 1
    turns[20, 30] -= 2
    turns[:6, 190:] -= 1
    found, count = moved(turns, SMOOTH)
    assert count == 3
    assert np.abs(found - right).max() < 1e-12


def test_details_that_neighbours_lead_up_to_are_kept():
    """A bump of 1.2 turns on flanks of 0.1 turns per pixel, and an etched step of 0.4 turns."""
    turns = SMOOTH + 1.2 * np.exp(-0.5 * ((X / 0.08) ** 2 + (Y / 0.08) ** 2)) + 0.4 * (X > 0.5)
    found, count = moved(turns, SMOOTH)
    assert count == 0
    assert np.array_equal(found, turns)
    unknown = np.full(SHAPE, np.nan)
    assert moved(SMOOTH + (X > 0.5), unknown)[1] == 0
