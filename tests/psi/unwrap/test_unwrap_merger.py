"""The whole map: tiles that disagree become regions, small tiles are no worse than one tile, what remains is flagged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cpikan.psi.unwrap import unwrap as door
from cpikan.psi.unwrap.integer_least_squares import OffsetSolution, solve_offsets
from cpikan.psi.unwrap.overlap import (
    OverlapStrip,
    Rectangle,
    Votes,
    compare_strips,
    contested_pairs,
    count_votes,
    join_rectangles,
)
from cpikan.psi.unwrap.report import UnwrapResult
from cpikan.psi.unwrap.unwrap import unwrap

TURN = 2 * np.pi


def wrap(phase: np.ndarray) -> np.ndarray:
    return phase - TURN * np.rint(phase / TURN)


def noisy(surface: np.ndarray, sigma_rad: float, seed: int = 1) -> np.ndarray:
    return wrap(surface + sigma_rad * np.random.default_rng(seed).normal(size=surface.shape)).astype(np.float32)


def open_fault(size: int) -> np.ndarray:
    """Two planes of opposite slope: they meet in the middle and are 2.4 turns apart at the ends."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return 1.2 * TURN * np.where(x > 0, y, -y) + 10 * x


def inner_fault(size: int) -> np.ndarray:
    """A fault whose step grows from nothing to three turns and vanishes again, through a curved surface."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    step = 3 * TURN * np.clip(1 - np.abs(x) / 0.3, 0, None)
    return 36 * (x * x + y * y) + np.where(y > 0.03 * np.sin(6 * x), step * np.exp(-2 * y), 0)


def speckle(size: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Surface, and the phase of two speckle fields whose coherence varies over the map."""
    random = np.random.default_rng(6)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    surface = 50 * (x * x + 0.5 * x * y) + 10 * np.sin(4 * y)
    texture = ndimage.gaussian_filter(random.normal(size=x.shape), size / 14)
    coherence = low + (high - low) * np.clip(0.5 + 0.4 * texture / texture.std(), 0, 1)
    one, other = random.normal(size=(2, size, size)) + 1j * random.normal(size=(2, size, size))
    field = one.conj() * (coherence * one + np.sqrt(1 - coherence**2) * other)
    return surface, np.angle(field * np.exp(1j * surface)).astype(np.float32)


def shares(result: UnwrapResult, surface: np.ndarray, wrapped: np.ndarray) -> tuple[float, float]:
    """Share of wrong orders on a connected map, and of wrong or flagged ones."""
    difference = result.orders - np.rint((surface - wrapped) / TURN).astype(np.int64)
    bad = difference != np.median(difference)
    return float(bad.mean()), float((bad | result.ambiguous).mean())


def case(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "speckle":
        return speckle(400, 0.35, 0.95)
    surface = {"open fault": open_fault, "inner fault": inner_fault}[name](400)
    return surface, noisy(surface, 0.15)


# --- tiles do not matter


@pytest.mark.parametrize("name", ["open fault", "inner fault", "speckle"])
@pytest.mark.parametrize(("tile", "overlap"), [(128, 32), (128, 64), (256, 64)])
def test_small_tiles_are_no_worse_than_one(name: str, tile: int, overlap: int) -> None:
    surface, wrapped = case(name)
    whole_wrong, whole_flagged = shares(unwrap(wrapped, tile=400), surface, wrapped)
    tiled = unwrap(wrapped, tile=tile, overlap=overlap)
    wrong, flagged = shares(tiled, surface, wrapped)
    # Tiles may cut single pixels of noise otherwise: two percent of what is flagged, and ten pixels.
    assert wrong <= 1.02 * whole_wrong + 10 / wrapped.size
    assert flagged <= 1.02 * whole_flagged + 10 / wrapped.size
    assert tiled.report.components == 1
    assert tiled.report.seam_violations == 0
    assert tiled.report.congruence_rad <= 1e-6
    assert (name == "speckle") or tiled.report.regions > 0


@pytest.mark.parametrize("overlap", [32, 64])
def test_many_small_tiles_along_a_fault(monkeypatch: pytest.MonkeyPatch, overlap: int) -> None:
    """Narrow regions along the fault cut it to their sides; contested again they widen at once, in few rounds."""
    monkeypatch.setattr(door, "_ROUNDS", 3)
    surface = open_fault(1024)
    wrapped = noisy(surface, 0.1)
    result = unwrap(wrapped, tile=128, overlap=overlap)
    assert shares(result, surface, wrapped)[0] < 1e-4
    assert result.report.overlap_disagreement < 1e-4


def test_regions_do_not_depend_on_threads_or_storage() -> None:
    _, wrapped = case("open fault")
    results = [unwrap(wrapped, tile=128, overlap=32, threads=threads) for threads in (1, 3)]
    results.append(unwrap(wrapped.astype(np.float64), tile=128, overlap=32))
    for other in results[1:]:
        assert np.array_equal(other.orders, results[0].orders)
        assert np.array_equal(other.component, results[0].component)
        assert np.array_equal(other.ambiguous, results[0].ambiguous)


def test_region_beside_moats_and_islands_keeps_the_components() -> None:
    surface = open_fault(300)
    wrapped = noisy(surface, 0.1)
    y, x = np.mgrid[:300, :300]
    distance = np.hypot(y - 220, x - 70)
    wrapped[(distance > 30) & (distance < 33)] = np.nan
    wrapped[:60, 200:203] = np.nan
    wrapped[60:63, 200:] = np.nan
    result = unwrap(wrapped, tile=96, overlap=32)
    assert result.report.regions > 0
    expected, count = ndimage.label(np.isfinite(wrapped))
    assert result.report.components == count == 3
    assert len(np.unique(np.stack((expected, result.component)).reshape(2, -1), axis=1).T) == count + 1
    for label in range(1, 4):
        part = result.component == label
        difference = (result.orders - np.rint((surface - wrapped) / TURN))[part]
        assert np.mean(difference != np.median(difference)) < 1e-3


def test_fault_longer_than_a_region_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no region may hold the fault, the answer may be wrong beyond it, but it says where tiles disagree."""
    surface, wrapped = case("open fault")
    monkeypatch.setattr(door, "LARGEST_REGION", 0)
    result = unwrap(wrapped, tile=128, overlap=32)
    wrong, _ = shares(result, surface, wrapped)
    assert wrong > 0.01
    assert result.report.regions == 0
    assert result.report.overlap_disagreement > 0.01
    assert result.report.ambiguous_pixels > 5 * shares(unwrap(wrapped), surface, wrapped)[1] * wrapped.size


def test_a_wrong_offset_of_a_region_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seam audit covers the border of a region."""
    y, x = np.mgrid[:300, :300]
    wrapped = wrap(0.2 * x + 0.1 * y).astype(np.float32)
    monkeypatch.setattr(door, "_ROUNDS", 1)
    calls: list[int] = []

    def spoiled(nodes: int, *rest: object) -> OffsetSolution:
        solution = solve_offsets(nodes, *rest)  # type: ignore[arg-type]
        solution.offsets[0 if not calls else -1] += 1  # first: a tile, so that it and three others become a region
        calls.append(nodes)
        return solution

    monkeypatch.setattr(door, "solve_offsets", spoiled)
    report = unwrap(wrapped, tile=100, overlap=20).report
    assert len(calls) == 2
    assert report.regions == 1
    assert report.components == 1
    assert report.seam_violations == report.jumps > 100  # two sides of at least 50 pixels each
    assert report.overlap_disagreement > 0


# --- which tiles become regions


def test_contested_pairs_are_those_beyond_single_pixels() -> None:
    votes = Votes(
        *(np.array(column) for column in ([0, 0, 1, 1, 2], [1, 1, 2, 2, 3], [5, 6, 0, 1, 2], [900, 4, 90, 10, 7]))
    )
    region_of_node = np.array([0, 1, 2, 3])
    offsets = np.array([0, 5, 5, 7])
    pairs = contested_pairs(votes, region_of_node, offsets)
    assert pairs.tolist() == [[1, 2]]  # 10 of 100; 4 of 904 are below half a percent; the last agrees
    assert contested_pairs(votes, region_of_node, offsets + np.array([0, 1, 0, 0])).tolist() == [[1, 2], [0, 1]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.integers(1, 60))
def test_rectangles_are_disjoint_whole_and_small_enough(seed: int, rows: int, columns: int, largest: int) -> None:
    random = np.random.default_rng(seed)
    tops, lefts = (np.concatenate(([0], np.cumsum(random.integers(1, 4, n)))) for n in (rows, columns))
    parts = [
        Rectangle(int(tops[i]), int(tops[i + 1]), int(lefts[j]), int(lefts[j + 1]))
        for i in range(rows)
        for j in range(columns)
    ]
    pairs = random.integers(0, len(parts), (random.integers(0, 8), 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    owner = np.zeros((tops[-1], lefts[-1]), int)
    for region in join_rectangles(parts, pairs, largest, random.random(len(parts)) < 0.3):
        assert region.pixels <= largest
        assert not owner[region.window].any()
        owner[region.window] = 1
        held = [p for p in parts if owner[p.window].any() and region.top <= p.top < region.bottom]
        assert all(p.bottom <= region.bottom for p in held)
    assert all(len(np.unique(owner[p.window])) == 1 for p in parts)
    everywhere = join_rectangles(parts, pairs, 10**6, random.random(len(parts)) < 0.3)
    for a, b in pairs:
        assert any(
            all(r.top <= parts[i].top < r.bottom and r.left <= parts[i].left < r.right for i in (a, b))
            for r in everywhere
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_one_difference_is_what_counting_finds(seed: int, mixed: bool) -> None:
    """The short way of comparing two strips against the counting of votes."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 6, 2))
    nodes = [np.where(random.random(shape) < 0.8, int(random.integers(0, 9)), -1).astype(np.int32) for _ in range(2)]
    orders = random.integers(-3, 4, shape).astype(np.int32)
    first, second = (
        OverlapStrip(orders + (random.random(shape) < 0.3) * mixed, nodes[0]),
        OverlapStrip(orders - 2, nodes[1]),
    )
    shared = (nodes[0] >= 0) & (nodes[1] >= 0)
    compared = compare_strips(first, second)
    counted, _ = count_votes(
        nodes[0][shared], nodes[1][shared], (first.orders - second.orders)[shared].astype(np.int64)
    )
    for name in ("first", "second", "difference", "pixels"):
        assert np.array_equal(getattr(compared.votes, name), getattr(counted, name))
    assert compared.deviating.sum() == counted.pixels.sum() - (counted.pixels.max() if counted.pixels.size else 0)


FaultMaker = Callable[[int], np.ndarray]


@pytest.mark.parametrize("maker", [open_fault, inner_fault])
def test_steps_beyond_a_quarter_wavelength_are_flagged(maker: FaultMaker) -> None:
    surface = maker(300)
    wrapped = noisy(surface, 0.1)
    result = unwrap(wrapped, tile=128, overlap=32)
    unwrapped = wrapped + TURN * result.orders
    for axis in (0, 1):
        far = np.abs(np.diff(unwrapped, axis=axis)) > np.pi + 1e-4
        before, after = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        assert result.ambiguous[before][far].all()
        assert result.ambiguous[after][far].all()
