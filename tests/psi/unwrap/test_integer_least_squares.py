"""Integer offsets of tiles: planted integers, corrupted edges, brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.psi.unwrap import integer_least_squares as ils
from cpikan.psi.unwrap.integer_least_squares import OffsetEdges, solve_offsets


def grid_edges(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    number = np.arange(rows * columns).reshape(rows, columns)
    first = np.concatenate((number[:, :-1].ravel(), number[:-1].ravel()))
    return first, np.concatenate((number[:, 1:].ravel(), number[1:].ravel()))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_planted_integers_without_errors_are_found(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    planted = random.integers(-500, 500, rows * columns)
    first, second = grid_edges(rows, columns)
    edges = OffsetEdges(first, second, planted[second] - planted[first], random.uniform(0.5, 100, first.size))
    size = random.permutation(planted.size)
    found = solve_offsets(planted.size, edges, size)
    gauge = int(np.argmax(size))
    assert np.array_equal(found.offsets, planted - planted[gauge])
    assert found.misfit == 0
    assert found.exact


def corrupted(seed: int, share: float) -> tuple[np.ndarray, OffsetEdges]:
    """Planted integers on a 10 x 10 grid, and edges of which a share is off by 1 or 2."""
    random = np.random.default_rng(seed)
    planted = random.integers(-50, 50, 100)
    first, second = grid_edges(10, 10)
    difference = planted[second] - planted[first]
    bad = random.random(first.size) < share
    difference[bad] += random.choice([-2, -1, 1, 2], int(bad.sum()))
    return planted, OffsetEdges(first, second, difference, random.uniform(1, 2, first.size))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.3))
def test_misfit_is_never_above_that_of_the_planted_integers(seed: int, share: float) -> None:
    planted, edges = corrupted(seed, share)
    found = solve_offsets(100, edges)
    assert found.exact
    assert found.misfit <= edges.misfit(planted) + 1e-9
    assert found.misfit == pytest.approx(edges.misfit(found.offsets))


def test_planted_integers_survive_corrupted_edges() -> None:
    """A node of the grid is lost alone only when about half of its 2 to 4 edges are bad: at 5 % that is two of four,
    6 * 0.05^2 = 1.5 %, of which about a fifth agree and outweigh the others; one of two in half of the 4 corners * 10 %."""
    right = []
    for seed in range(40):
        planted, edges = corrupted(seed, 0.05)
        difference = solve_offsets(100, edges).offsets - planted
        right.append(np.bincount(difference - difference.min()).max())
    assert np.mean(right) > 98
    assert np.median(right) >= 99


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_exact_against_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    nodes = int(random.integers(2, 6))
    pairs = np.array(list(itertools.combinations(range(nodes), 2)))
    extra = pairs[random.random(len(pairs)) < 0.8]
    path = np.stack((np.arange(nodes - 1), np.arange(1, nodes)), 1)  # keeps the graph connected; may repeat a pair
    first, second = np.concatenate((path, extra)).T
    edges = OffsetEdges(first, second, random.integers(-1, 2, first.size), random.uniform(0.1, 3, first.size))
    found = solve_offsets(nodes, edges)
    # The optimum is reached where some spanning tree of edges is met, so offsets stay within nodes - 1 steps of 1.
    reach = range(-(nodes - 1), nodes)
    every = (np.array((0, *rest)) for rest in itertools.product(reach, repeat=nodes - 1))
    assert found.misfit == pytest.approx(min(edges.misfit(o) for o in every), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_fast_moves_alone_never_lose_against_the_tree(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = grid_edges(6, 6)
    edges = OffsetEdges(first, second, random.integers(-2, 3, first.size), random.uniform(0.1, 3, first.size))
    start = random.integers(-3, 4, 36)
    assert edges.misfit(ils._improved(start, edges)) <= edges.misfit(start)


def test_moves_repair_a_cluster_that_single_nodes_cannot() -> None:
    """Two halves of a ladder joined by rungs that all ask for 3: only moving a whole half helps."""
    first, second = grid_edges(2, 8)
    difference = np.zeros(first.size, np.int64)
    difference[-8:] = 3
    edges = OffsetEdges(first, second, difference, np.where(difference == 3, 1.0, 10.0))
    assert edges.misfit(ils._improved(np.zeros(16, np.int64), edges)) == 0


def test_groups_are_solved_apart_and_each_has_its_gauge() -> None:
    edges = OffsetEdges(np.array([0, 3]), np.array([1, 4]), np.array([5, -7]), np.array([1.0, 1.0]))
    found = solve_offsets(6, edges, np.array([1, 9, 4, 9, 1, 1]))
    assert found.offsets.tolist() == [-5, 0, 0, 0, -7, 0]
    assert len(np.unique(found.group)) == 4
    assert found.group[0] == found.group[1]
    assert found.group[3] == found.group[4]


def test_nothing_to_solve() -> None:
    none = np.zeros(0, np.int64)
    assert solve_offsets(0, OffsetEdges(none, none, none, none)).offsets.size == 0
    assert solve_offsets(3, OffsetEdges(none, none, none, none)).offsets.tolist() == [0, 0, 0]


def test_too_large_for_the_exact_method_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ils, "_EXACT_EDGES", 2)
    cycle = OffsetEdges(np.array([0, 1, 2]), np.array([1, 2, 0]), np.array([1, 0, 0]), np.array([3.0, 2.0, 1.0]))
    found = solve_offsets(3, cycle)
    assert not found.exact
    assert found.misfit == 1.0  # the lightest edge of the cycle pays


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": np.array([0.0])}, "above zero"),
        ({"weight": np.array([np.nan])}, "above zero"),
        ({"second": np.array([2])}, "outside 0..1"),
        ({"difference": np.array([1, 2])}, "different lengths"),
    ],
)
def test_bad_edges_are_refused(change: dict[str, np.ndarray], words: str) -> None:
    good = {"first": np.array([0]), "second": np.array([1]), "difference": np.array([1]), "weight": np.array([1.0])}
    with pytest.raises(InputError, match=words):
        solve_offsets(2, OffsetEdges(**(good | change)))
