"""Mosaic Flow: the exact box converges at the rate of Schwarz to the solution of the grid, a learned one to its own error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.learning.learned_box import random_edges, train_box
from cpikan.learning.mosaic_flow import HarmonicBox, MosaicFlow, harmonic, smooth_start
from cpikan.learning.mosaic_levels import solve_mosaic


def edged(shape, seed=0):
    """A grid whose edge is drawn and whose inside is zero."""
    values = np.random.default_rng(seed).standard_normal(shape)
    values[1:-1, 1:-1] = 0
    return values


def test_the_equations_of_the_whole_grid_are_solved():
    """What every box is compared with leaves no residual, and keeps the edge."""
    values = edged((7, 11))
    found = harmonic(values)
    left = found[:-2, 1:-1] + found[2:, 1:-1] + found[1:-1, :-2] + found[1:-1, 2:] - 4 * found[1:-1, 1:-1]
    assert np.abs(left).max() < 1e-13
    np.testing.assert_array_equal(edge_of(found), values)
    assert not values[1:-1, 1:-1].any()


def test_a_box_is_solved_for_any_values_on_its_edge():
    """Through the places of the edge too: one box is the whole domain."""
    flow = MosaicFlow(HarmonicBox(6), 6, (2, 2))
    values = edged(flow.shape)
    np.testing.assert_allclose(flow.solve(values).values, harmonic(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("wave", [1, 3])
@pytest.mark.parametrize("across", [False, True])
def test_two_boxes_converge_at_the_rate_of_schwarz(wave, across):
    """Half over each other: each leaves sinh(k c) / sinh(2 k c) of a mode at the other's edge, c half a box."""
    cells, half = 8, 4
    flow = MosaicFlow(HarmonicBox(cells), cells, (2, 3) if across else (3, 2))
    values = np.zeros(flow.shape)
    mode = np.sin(math.pi * wave * np.arange(cells + 1) / cells)
    inside = np.outer(np.random.default_rng(1).standard_normal(3 * half - 1), mode)
    (values.T if across else values)[1:-1] = inside
    flow.sweep(values)
    before = values.copy()
    flow.sweep(values)
    shift = math.acosh(2 - math.cos(math.pi * wave / cells))
    rate = (0.5 / math.cosh(shift * half)) ** 2
    at = slice(half, None, half)  # the lines through the middle of either box
    after, start = ((one.T if across else one)[at] for one in (values, before))
    np.testing.assert_allclose(after, rate * start, rtol=0, atol=1e-14 * np.abs(inside).max())


def test_many_boxes_reach_the_solution_of_the_grid():
    flow = MosaicFlow(HarmonicBox(4), 4, (5, 6))
    values = edged(flow.shape, 2)
    found = flow.solve(values, tolerance=1e-13)
    # what is left after a change of d at a rate q is d q / (1 - q), with q some 0.8 here
    np.testing.assert_allclose(found.values, harmonic(values), rtol=0, atol=1e-11)
    assert 20 < found.sweeps < 200
    y, x = np.mgrid[0:11, 0:13]
    saddle = (x**2 - y**2).astype(float)  # which five points differentiate exactly
    np.testing.assert_allclose(flow.solve(edge_of(saddle), 1e-14).values, saddle, rtol=0, atol=1e-10)


def edge_of(values):
    found = values.copy()
    found[1:-1, 1:-1] = 0
    return found


def test_the_smooth_start_keeps_the_edge_and_holds_what_is_linear():
    y, x = np.mgrid[0:9, 0:13] / 8
    values = edge_of(np.sin(3 * x) * np.exp(y))
    np.testing.assert_array_equal(edge_of(smooth_start(values)), values)
    np.testing.assert_allclose(smooth_start(edge_of(2 * x - 3 * y + 1)), 2 * x - 3 * y + 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("halves", [(16, 16), (8, 32), (6, 10)])
def test_levels_reach_the_solution_of_the_grid_in_few_sweeps(halves):
    """However many boxes: without them as many times as many sweeps as there are boxes on the way, squared."""
    flow = MosaicFlow(HarmonicBox(4), 4, halves)
    values = edged(flow.shape, 2)
    found = solve_mosaic(flow, values, 1e-12)
    np.testing.assert_allclose(found.values, harmonic(values), rtol=0, atol=2e-11)
    assert found.sweeps <= 60
    np.testing.assert_array_equal(edge_of(found.values), values)
    if halves == (16, 16):
        assert flow.solve(values, 1e-12).sweeps > 6 * found.sweeps


def test_levels_of_a_learned_box_have_its_own_fixed_point():
    box = train_box(4, hidden=12, degree=1, steps=20, seed=1)
    flow = MosaicFlow(box, 4, (8, 8))
    y, x = np.mgrid[0:17, 0:17] / 16
    values = edge_of(np.sin(3 * x) * np.exp(y))
    plain, levels = flow.solve(smooth_start(values), 1e-10, 2000), solve_mosaic(flow, values, 1e-10)
    # what is left after a change of d at a rate q is d q / (1 - q)
    np.testing.assert_allclose(levels.values, plain.values, rtol=0, atol=1e-7)
    assert levels.sweeps < plain.sweeps


def test_a_learned_box_leaves_its_own_error():
    box, exact = train_box(4, hidden=48, degree=1, steps=100, seed=1), HarmonicBox(4)
    edges = random_edges(4, 200, np.random.default_rng(5))
    wanted = exact(edges)
    local = np.linalg.norm(box(edges) - wanted) / np.linalg.norm(wanted)
    assert 1e-6 < local < 0.1  # of what it has not seen
    np.testing.assert_allclose(box(3 * edges - 7), 3 * box(edges) - 7, rtol=0, atol=1e-11)
    np.testing.assert_allclose(box(np.full((1, 16), 2.5)), 2.5, rtol=0, atol=0.1)
    flow = MosaicFlow(box, 4, (8, 8))
    y, x = np.mgrid[0:17, 0:17] / 16
    values = edge_of(np.sin(3 * x) * np.exp(y))
    found, truth = flow.solve(smooth_start(values), 1e-6, 300), harmonic(values)
    assert found.sweeps < 300
    assert np.linalg.norm(found.values - truth) < 2 * local * np.linalg.norm(truth)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="box of 5 x 5 cells: give an even number"):
        HarmonicBox(5)
    with pytest.raises(InputError, match="1 x 4 half boxes: give at least 2 x 2"):
        MosaicFlow(HarmonicBox(4), 4, (1, 4))
    with pytest.raises(InputError, match=r"values of shape \(3, 3\): give \(5, 5\)"):
        MosaicFlow(HarmonicBox(4), 4, (2, 2)).solve(np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"values of shape \(3, 3\): give \(5, 5\)"):
        solve_mosaic(MosaicFlow(HarmonicBox(4), 4, (2, 2)), np.zeros((3, 3)))
