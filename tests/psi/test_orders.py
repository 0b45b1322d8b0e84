"""Orders decided with neighbours and a surface, against the same decision written out pixel by pixel in plain Python."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plain_kernels as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.psi.kernels.arguments import pack_search
from cpikan.psi.kernels.model import DemodulatedRows, HeightRows, OrderSearch, empty_rows
from cpikan.psi.model.flags import Flag
from cpikan.psi.refine import orders
from cpikan.psi.refine.protocol import NoSurface, SurfaceRows

HALF_NM = 300.0
SHAPE = (13, 17)
NEAR_TIE = 1e-4  # cycles: ten times what float32 heights of below 20 cycles differ by from float64 ones


@dataclass(frozen=True)
class Scene:
    """Demodulated rows of a bent surface with noise and holes, what the search allows, and a surface that is half known."""

    rows: DemodulatedRows
    search: OrderSearch
    surface: SurfaceRows


def make_scene(seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    waves = int(rng.choice([2, 4]))  # kernels of three would be compiled for this alone
    ratio = np.cumprod([1.0, *rng.uniform(0.86, 0.95, waves - 1)])
    search = OrderSearch(
        order=tuple(range(waves)),
        ratio=ratio,
        half_wave_nm=HALF_NM,
        piston_turns=np.zeros(waves),
        tilt_turns=np.zeros((waves, 2)),
        centre=(0.0, 0.0),
        low_nm=-3.2 * HALF_NM,
        range_nm=float(rng.uniform(5, 9)) * HALF_NM,
        near_low_nm=-3.2 * HALF_NM,
        near_range_nm=1.0,
        misfit_max=float(rng.uniform(8, 30)),
        finest=bool(rng.random() < 0.3),
    )
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    truth = rng.uniform(-1, 1) * (y - 6) / 5 + rng.uniform(-1, 1) * x / 9 + 1.0 * (x > 9) * (rng.random() < 0.5)
    sigma = rng.uniform(0.01, 0.06) * rng.uniform(0.7, 1.5, (waves, *SHAPE))
    phase = truth * ratio[:, None, None] + rng.normal(size=sigma.shape) * sigma
    phase = (phase - np.rint(phase)).astype(np.float32)
    weight = (sigma**-2).astype(np.float32)
    found = reference.search_orders(
        phase.astype(float), 1 / weight.astype(float), search, search.low_nm, search.range_nm
    )
    order, _, best, second, _ = (part.astype(np.float32) for part in found)
    flags = np.where(rng.random(SHAPE) < 0.1, Flag.INVALID, 0).astype(np.uint8)
    height, spread, modulation = rng.normal(size=(3, *SHAPE)).astype(np.float32)
    rows = DemodulatedRows(phase, weight, order, best, second, height, spread, modulation, flags)
    known = rng.random(SHAPE) < 0.5
    surface = SurfaceRows(
        np.where(known, (truth + rng.normal(0, 0.2, SHAPE)) * HALF_NM, np.nan).astype(np.float32),
        np.where(known, 0.2 * HALF_NM, np.inf).astype(np.float32),
    )
    return Scene(rows, search, NoSurface().surface(rows, 0, slice(0, SHAPE[0])) if rng.random() < 0.3 else surface)


def plain_fit(rows: DemodulatedRows, search: OrderSearch, y: int, x: int, order: float) -> tuple[float, float, float]:
    """Chi squared of an order of a pixel, the height (cycles) that makes it least, and the variance of that height."""
    anchor = float(rows.phase_cycles[0, y, x]) + order
    weight, ratio = rows.weight[:, y, x].astype(float), search.ratio
    rest = rows.phase_cycles[:, y, x].astype(float) - anchor * ratio
    rest = rest - np.rint(rest)
    rest[0] = 0.0
    variance = 1 / (weight * ratio**2).sum()
    shift = (weight * ratio * rest).sum() * variance
    return float((weight * (rest - shift * ratio) ** 2).sum()), anchor + shift, float(variance)


def plain_neighbours(scene: Scene, choice: orders.OrderChoice) -> tuple[np.ndarray, np.ndarray]:
    """Height (cycles) and certainty of every pixel under its order; NaN and zero where there is no pixel."""
    height, certainty = np.full(SHAPE, np.nan), np.zeros(SHAPE)
    for y, x in np.ndindex(SHAPE):
        if scene.rows.flags[y, x] & Flag.INVALID:
            continue
        height[y, x] = plain_fit(scene.rows, scene.search, y, x, choice.order[y, x])[1]
        odds = np.exp(-0.5 * np.clip(float(choice.second[y, x]) - float(choice.best[y, x]), 0, 40))
        certainty[y, x] = (1 - odds) / (1 + odds)
    return height, certainty


@dataclass(frozen=True)
class Verdict:
    """The order of the least cost of a pixel, that cost and the runner-up's, and whether rounding may decide otherwise."""

    order: float
    best: float
    second: float
    close: bool


def plain_verdict(
    scene: Scene, choice: orders.OrderChoice, neighbours: tuple[np.ndarray, np.ndarray], y: int, x: int
) -> Verdict:
    """Weigh every order of one pixel: its phases, all other pixels of the 7 x 7 window, the surface."""
    search, (height, certainty) = scene.search, neighbours
    anchor, own = float(scene.rows.phase_cycles[0, y, x]), height[y, x]
    place, sigma = float(scene.surface.height_nm[y, x]), float(scene.surface.sigma_nm[y, x])
    window = [
        (v, u)
        for v in range(max(0, y - 3), min(SHAPE[0], y + 4))
        for u in range(max(0, x - 3), min(SHAPE[1], x + 4))
        if (v, u) != (y, x) and np.isfinite(height[v, u])
    ]
    against = sum(certainty[v, u] for v, u in window if abs(height[v, u] - own) > 0.5)
    off = min(((own * HALF_NM - place) / sigma) ** 2, 12.0) if np.isfinite(sigma) else 0.0
    gap = float(choice.second[y, x]) - float(choice.best[y, x])
    enough = 0.6 * against + off + search.margin_min + 1  # nothing can gain more than stands against the order
    close = abs(gap - enough) < 0.01 or any(abs(abs(height[v, u] - own) - 0.5) < NEAR_TIE for v, u in window)
    if gap > enough:
        return Verdict(float(choice.order[y, x]), float(choice.best[y, x]), float(choice.second[y, x]), close)
    low, high = search.low_nm / HALF_NM, (search.low_nm + search.range_nm) / HALF_NM
    tried = np.arange(np.ceil(low - anchor), np.ceil(low - anchor) + 20)
    close |= any(abs(anchor + k - edge) < NEAR_TIE for k in tried for edge in (low, high))
    tried = [k for k in tried if anchor + k < high]
    fits = [plain_fit(scene.rows, search, y, x, k) for k in tried]
    votes = np.zeros(len(tried))
    for v, u in window:
        away = np.array([abs(height[v, u] - fit[1]) for fit in fits])
        close |= bool((abs(away - 0.5) < NEAR_TIE).any() or np.ptp(np.sort(away)[:2]) < NEAR_TIE)
        if away.min() < 0.5:
            votes[away.argmin()] += certainty[v, u]
    total = sum(certainty[v, u] for v, u in window)
    costs = []
    for (chi2, cycles, variance), vote in zip(fits, votes, strict=True):
        prior = 2 * 0.3 * (total - vote)
        if np.isfinite(sigma):
            prior += min((cycles * HALF_NM - place) ** 2 / (sigma**2 + variance * HALF_NM**2), 12.0)
        costs.append(chi2 + prior)
    first, second = np.argsort(costs)[:2]
    return Verdict(float(tried[first]), costs[first], costs[second], close)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_round_decides_as_the_plain_rule_does(seed):
    scene = make_scene(seed)
    rows, packed = scene.rows, pack_search(scene.search)
    # float32: heights of below 20 cycles are known to 2^-20, and a phase of weight w half a cycle off then to w 2^-20
    rounding = 4 * len(rows.weight) * float(rows.weight.max()) * 20 * 2**-24 + 1e-3
    choice = orders.own_orders(rows, 0, None)
    for _ in range(orders.ROUNDS):
        fast = orders.heights_in_cycles(rows, choice, packed)
        neighbours = plain_neighbours(scene, choice)
        inside = np.isfinite(neighbours[0])
        assert np.abs(fast.height_cycles - neighbours[0])[inside].max() < NEAR_TIE / 10
        assert np.abs(fast.certainty - neighbours[1]).max() < 1e-5
        order, best, second = orders.icm_round(rows, choice, fast, scene.surface, packed, slice(0, SHAPE[0]))
        for y, x in np.ndindex(SHAPE):
            if not choice.active[y, x]:
                assert order[y, x] == choice.order[y, x]
                continue
            plain = plain_verdict(scene, choice, neighbours, y, x)
            if plain.close:
                continue
            assert abs(best[y, x] - plain.best) < rounding
            assert abs(second[y, x] - plain.second) < rounding
            assert order[y, x] == plain.order or plain.second - plain.best < 2 * rounding
        active = orders.active_set(order != choice.order, choice.active)
        choice = orders.OrderChoice(order, best, second, active)


def test_few_pixels_are_too_close_to_call():
    scene = make_scene(3)
    choice = orders.own_orders(scene.rows, 0, None)
    neighbours = plain_neighbours(scene, choice)
    found = [
        plain_verdict(scene, choice, neighbours, y, x).close for y, x in zip(*np.nonzero(choice.active), strict=True)
    ]
    assert len(found) > 50
    assert np.mean(found) < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_all_rounds_are_the_rounds_one_after_another_whatever_the_parts(seed):
    scene = make_scene(seed)
    rows, packed = scene.rows, pack_search(scene.search)
    begun = orders.own_orders(rows, 0, None)
    whole = orders.icm(rows, begun, scene.surface, packed)
    choice = begun
    for _ in range(orders.ROUNDS):
        fast = orders.heights_in_cycles(rows, choice, packed)
        halves = [
            orders.icm_round(rows, choice, fast, scene.surface, packed, part)
            for part in (slice(0, 5), slice(5, SHAPE[0]))
        ]
        order, best, second = (np.concatenate(part) for part in zip(*halves, strict=True))
        choice = orders.OrderChoice(order, best, second, orders.active_set(order != choice.order, begun.active))
    for mine, theirs in zip(whole[:3], choice[:3], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(whole.active, begun.active)


def test_a_lone_pixel_keeps_its_order():
    """Without neighbours and surface only phases count: a pixel that voted for itself would seem surer than it is."""
    scene = make_scene(8)
    flags = np.full(SHAPE, Flag.INVALID, np.uint8)
    flags[6, 8] = 0
    second = scene.rows.best + np.float32(1.0)
    rows = scene.rows._replace(flags=flags, second=second)
    packed = pack_search(scene.search)
    choice = orders.own_orders(rows, 0, None)
    found = orders.icm(rows, choice, NoSurface().surface(rows, 0, slice(0, SHAPE[0])), packed)
    exact = reference.search_orders(
        rows.phase_cycles[:, 6:7, 8:9].astype(float),
        1 / rows.weight[:, 6:7, 8:9].astype(float),
        scene.search,
        scene.search.low_nm,
        scene.search.range_nm,
    )
    assert found.order[6, 8] == exact[0][0, 0]
    assert found.second[6, 8] - found.best[6, 8] == pytest.approx(float(exact[3][0, 0] - exact[2][0, 0]), abs=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_heights_are_formed_from_phases_and_orders(seed):
    scene = make_scene(seed)
    rows, search = scene.rows, scene.search
    packed = pack_search(search)
    choice = orders.icm(rows, orders.own_orders(rows, 0, None), scene.surface, packed)
    part = slice(2, 11)
    out = HeightRows(*empty_rows(9, SHAPE[1]))
    orders.form_heights(rows, choice, packed, part, out)
    np.testing.assert_array_equal(out.sigma_nm, rows.sigma_nm[part])
    np.testing.assert_array_equal(out.modulation, rows.modulation[part])
    for r, x in np.ndindex(out.flags.shape):
        y = r + 2
        order = float(choice.order[y, x])
        chi2, cycles, _ = plain_fit(rows, search, y, x, order)
        moved = bool(choice.active[y, x]) and order != rows.order[y, x]
        height = (rows.phase_cycles[0, y, x] + order if search.finest else cycles) * HALF_NM
        # float32 of below 20 cycles
        assert out.height_nm[r, x] == pytest.approx(
            height if moved else rows.height_nm[y, x], abs=20 * 2**-22 * HALF_NM
        )
        assert bool(out.flags[r, x] & Flag.REFINED) == moved
        margin = float(choice.second[y, x]) - float(choice.best[y, x])
        if choice.active[y, x] and abs(chi2 - search.misfit_max) > 0.1 and abs(margin - search.margin_min) > 1e-3:
            doubtful = margin < search.margin_min or chi2 > search.misfit_max
            assert bool(out.flags[r, x] & Flag.AMBIGUOUS) == doubtful
