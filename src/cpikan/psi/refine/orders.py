"""Integer orders by maximum a posteriori: what a pixel's phases say, what its neighbours say, and a surface.

For every order k of the anchor that the range allows, the cost is

    chi squared of k  +  2 beta (neighbours that chose another height)  +  min((h_k - surface)^2 / variance, cap)

with the variance of the surface, of the steps it may miss, and of the pixel. The neighbours' term is that of a Potts model,
solved by iterated conditional modes (Besag, J. R. Stat. Soc. B 48, 259 (1986)); a neighbour counts for the order that puts
the pixel within half an order of it, as much as it is sure of itself. Both priors are bounded, so phases that are sure
enough overrule them, and a true step is kept: at a straight edge half of the neighbours are on the pixel's side. The height
is formed once, from phases and the order, as the pixel pass forms it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from cpikan.psi.kernels.arguments import Search
from cpikan.psi.kernels.cpu_phasors import inlined, jit
from cpikan.psi.kernels.cpu_search import order_misfit
from cpikan.psi.kernels.model import DemodulatedRows, HeightRows
from cpikan.psi.model.flags import Flag
from cpikan.psi.refine.patch_evidence import RADIUS as PATCH
from cpikan.psi.refine.patch_evidence import fill_gaps, least_gap
from cpikan.psi.refine.protocol import CELL_PX, SurfaceRows

RADIUS = 3  # of the window of neighbours, pixels
ROUNDS = 3
HALO = RADIUS * ROUNDS
BETA = 0.3  # of the Potts model: 48 neighbours that agree weigh 29 units of chi squared
SURFACE_CAP = 12.0  # units of chi squared that a surface can weigh at most
OPEN_MARGIN = 2 * BETA * ((2 * RADIUS + 1) ** 2 - 1) + SURFACE_CAP  # a pixel surer than this cannot be overruled
_INVALID, _AMBIGUOUS, _REFINED = int(Flag.INVALID), int(Flag.AMBIGUOUS), int(Flag.REFINED)
_f = np.float32
_LARGE = _f(1e30)
_PART_ROWS = 16  # of a thread's work
Share = Callable[[Callable[[slice], Any], Iterable[slice]], Iterable[Any]]


class OrderChoice(NamedTuple):
    """Orders on their way: ``order``, its cost ``best`` and that of the runner-up ``second`` (chi squared and priors),
    (rows, W) float32, and the pixels that neighbours may change, ``active``."""

    order: np.ndarray
    best: np.ndarray
    second: np.ndarray
    active: np.ndarray


class Neighbours(NamedTuple):
    """Heights in cycles of the anchor (1e9 where there is no pixel), and how sure every pixel is of its own: 0 (even odds, or
    no pixel) to 1; (rows, W) float32."""

    height_cycles: np.ndarray
    certainty: np.ndarray


class _Candidates(NamedTuple):
    """For every order of a pixel: chi squared, height in cycles, certainty of the neighbours that vote for it."""

    misfit: np.ndarray
    height: np.ndarray
    votes: np.ndarray


def own_orders(rows: DemodulatedRows, first_row: int, cells: np.ndarray | None) -> OrderChoice:
    """Begin with the pixels' own orders; ``cells`` (64-pixel cells of the image, bool) restricts what may change."""
    with np.errstate(invalid="ignore"):
        unsure = (rows.second - rows.best < np.float32(OPEN_MARGIN)) & ((rows.flags & _INVALID) == 0)
    if cells is not None:
        y = (first_row + np.arange(unsure.shape[0])) // CELL_PX
        unsure &= cells[y][:, np.arange(unsure.shape[1]) // CELL_PX]
    return OrderChoice(rows.order, rows.best, rows.second, unsure)


def icm(
    rows: DemodulatedRows, choice: OrderChoice, surface: SurfaceRows, search: Search, share: Share = map
) -> OrderChoice:
    """Run all rounds of iterated conditional modes; ``share`` maps a function over parts of the rows, maybe on threads."""
    unsure, parts = choice.active, _parts(len(choice.order))
    for _ in range(ROUNDS):
        if not choice.active.any():
            break
        neighbours = heights_in_cycles(rows, choice, search, share)
        found = list(share(functools.partial(icm_round, rows, choice, neighbours, surface, search), parts))
        order, best, second = (np.concatenate(part) for part in zip(*found, strict=True))
        choice = OrderChoice(order, best, second, active_set(order != choice.order, unsure))
    return choice._replace(active=unsure)


def icm_round(
    rows: DemodulatedRows,
    choice: OrderChoice,
    neighbours: Neighbours,
    surface: SurfaceRows,
    search: Search,
    part: slice,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decide the rows ``part`` once: order, its cost and the runner-up's, (rows, W); pixels that are not active keep theirs.

    Neighbours are as they were before the round, so parts may be worked on at the same time.
    """
    order, best, second = (a[part].copy() for a in (choice.order, choice.best, choice.second))
    out = OrderChoice(order, best, second, choice.active[part])
    _decide(rows, neighbours, surface, search, part.start, out)
    return order, best, second


def heights_in_cycles(rows: DemodulatedRows, choice: OrderChoice, search: Search, share: Share = map) -> Neighbours:
    """Work out the height of every pixel under its order, and how sure the pixel is of it."""
    found = Neighbours(np.empty_like(choice.order), np.empty_like(choice.order))

    def fill(part: slice) -> None:
        some = OrderChoice(*(array[part] for array in choice))
        _fill_neighbours(rows, part.start, some, search.ratio, found.height_cycles[part], found.certainty[part])

    list(share(fill, _parts(len(choice.order))))
    return found


def active_set(changed: np.ndarray, unsure: np.ndarray) -> np.ndarray:
    """Choose the pixels of the next round: those ``unsure`` that have a changed pixel in their window, or are one."""
    if not changed.any():
        return np.zeros_like(unsure)
    wide = np.pad(changed, RADIUS)
    side = 2 * RADIUS + 1
    tall = np.logical_or.reduce([wide[k : k + changed.shape[0]] for k in range(side)])
    return unsure & np.logical_or.reduce([tall[:, k : k + changed.shape[1]] for k in range(side)])


def form_heights(rows: DemodulatedRows, choice: OrderChoice, search: Search, part: slice, out: HeightRows) -> None:
    """Form heights, sigma, modulation and flags of the rows ``part`` from the phases and the orders chosen, into ``out``.

    ``choice`` holds costs, priors included; the ambiguous flag says what is left of the doubt after them, and a chosen
    order that does not fit its phases. A flag that the pixel's own phases earned goes only where the phases of its patch
    clear it together. Flag 16 marks orders that are not the pixel's own.
    """
    _form(rows, choice, search, part.start, part.stop, out)
    keep_doubt(rows, choice, search, part, out)


def keep_doubt(rows: DemodulatedRows, choice: OrderChoice, search: Search, part: slice, out: HeightRows) -> None:
    """Flag again what neighbours cleared although the phases of the patch do not."""
    cleared = choice.active[part] & ((rows.flags[part] & _AMBIGUOUS) != 0) & ((out.flags & _AMBIGUOUS) == 0)
    if not cleared.any():
        return
    first, last = max(0, part.start - PATCH), min(len(choice.order), part.stop + PATCH)
    shape = (last - first, choice.order.shape[1])
    heights, gaps = np.empty(shape, np.float32), np.zeros((len(search.rivals), *shape), np.float32)
    fill_gaps(rows, choice.order, search, first, heights, gaps)
    _flag_doubt(heights, gaps, cleared, part.start - first, search, out.flags)


def replace_by_surface(surface: SurfaceRows, out: HeightRows) -> None:
    """Put the surface in place of the heights of ``out``, rows of the same image, wherever it knows anything."""
    known = np.isfinite(surface.sigma_nm) & ((out.flags & _INVALID) == 0)
    np.copyto(out.height_nm, surface.height_nm, where=known)
    np.copyto(out.sigma_nm, surface.sigma_nm, where=known)


def _parts(count: int) -> list[slice]:
    return [slice(a, min(a + _PART_ROWS, count)) for a in range(0, count, _PART_ROWS)]


@jit
def _joint_variance(weight, ratio, y, x):  # type: ignore[no-untyped-def]
    """Compute the variance of the height by all wavelengths, cycles^2 of the anchor."""
    total = _f(0)
    for i in range(len(ratio)):
        total += weight[i, y, x] * (ratio[i] * ratio[i])
    return _f(1) / total


@jit
def _fill_neighbours(rows, first, choice, ratio, height, certainty):  # type: ignore[no-untyped-def]
    phase, weight = rows.phase_cycles, rows.weight
    for r in range(height.shape[0]):
        y = first + r
        for x in range(height.shape[1]):
            variance = _joint_variance(weight, ratio, y, x)
            anchor = phase[0, y, x] + choice.order[r, x]
            shift = order_misfit(phase[:, y, :], weight[:, y, :], ratio, anchor, variance, x)[1]
            gap = min(max(choice.second[r, x] - choice.best[r, x], _f(0)), _f(40))
            odds = np.exp(_f(-0.5) * gap)
            absent = rows.flags[y, x] & _INVALID
            height[r, x] = _f(1e9) if absent else anchor + shift
            certainty[r, x] = _f(0) if absent else (_f(1) - odds) / (_f(1) + odds)


@jit
def _sum_votes(neighbours, y, total, against):  # type: ignore[no-untyped-def]
    """Sum the certainty of all neighbours of a row's pixels, and that of those on another height."""
    level, certainty = neighbours
    height, width = level.shape
    own = level[y]
    for x in range(width):
        total[x] = _f(0)
        against[x] = _f(0)
    for v in range(max(0, y - RADIUS), min(height, y + RADIUS + 1)):
        there, sure = level[v], certainty[v]
        for d in range(-RADIUS, RADIUS + 1):
            if v == y and d == 0:
                continue
            first, last = np.uintp(max(0, -d)), np.uintp(width - max(0, d))
            for x in range(first, last):
                weight = sure[x + d]
                total[x] += weight
                against[x] += weight if abs(there[x + d] - own[x]) > _f(0.5) else _f(0)


@jit
def _fill_misfits(rows, search, y, x, candidates):  # type: ignore[no-untyped-def]
    """Fill chi squared and height of the orders in range; give their number, the first of them, and the joint variance."""
    phase, weight, ratio, limits = rows.phase_cycles, rows.weight, search.ratio, search.whole
    total = _f(0)
    for i in range(len(ratio)):
        total += weight[i, y, x] * ratio[i] * ratio[i]
    variance = _f(1) / total
    anchor = phase[0, y, x]
    start = np.ceil(limits.low - anchor)
    count = 0
    for j in range(limits.orders + 1):
        if j > 0 and anchor + start + _f(j) >= limits.end:
            break
        cycles = anchor + start + _f(j)
        candidates.misfit[j], shift = order_misfit(phase[:, y, :], weight[:, y, :], ratio, cycles, variance, x)
        candidates.height[j] = cycles + shift
        candidates.votes[j] = _f(0)
        count += 1
    return count, start, variance


@jit
def _count_votes(neighbours, y, x, lowest, count, candidates):  # type: ignore[no-untyped-def]
    """Give every neighbour's certainty to the order that puts the pixel within half an order of it.

    ``lowest`` is the height of the first order, without its correction.
    """
    level, certainty = neighbours
    height, width = level.shape
    for v in range(max(0, y - RADIUS), min(height, y + RADIUS + 1)):
        for u in range(max(0, x - RADIUS), min(width, x + RADIUS + 1)):
            about = np.rint(level[v, u] - lowest[0] - lowest[1])  # corrections move it by one at most
            if (v == y and u == x) or not (_f(-1) <= about <= _f(count)):
                continue
            near, least = 0, _f(0.5)
            for j in range(max(0, int(about) - 1), min(count, int(about) + 2)):
                if abs(level[v, u] - candidates.height[j]) <= least:
                    near, least = j, abs(level[v, u] - candidates.height[j])
            candidates.votes[near] += certainty[v, u] if least < _f(0.5) else _f(0)


@inlined
def _surface_cost(height_nm, surface_nm, variance):  # type: ignore[no-untyped-def]
    away = height_nm - surface_nm
    return min(away * away / variance, _f(SURFACE_CAP))


@jit
def _decide(rows, neighbours, surface, search, first, out):  # type: ignore[no-untyped-def]
    """Give every active pixel of ``out``, whose first row is row ``first``, the order of the least cost."""
    size, half_wave = search.whole.orders + 1, search.half_wave_nm
    candidates = _Candidates(np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32))
    width = out.order.shape[1]
    total, against = np.empty(width, np.float32), np.empty(width, np.float32)
    order, best, second, active = out
    for r in range(order.shape[0]):
        if not active[r].any():
            continue
        y = first + r
        _sum_votes(neighbours, y, total, against)
        for x in range(width):
            if not active[r, x]:
                continue
            place, sigma = surface.height_nm[y, x], surface.sigma_nm[y, x]
            off = _f(0)
            if sigma < _LARGE:
                off = (neighbours.height_cycles[y, x] * half_wave - place) / sigma
                off = min(off * off, _f(SURFACE_CAP))
            # nothing can gain more than what stands against the pixel's order: most pixels end here
            if second[r, x] - best[r, x] > _f(2 * BETA) * against[x] + off + search.margin_min + _f(1):
                continue
            count, start, variance = _fill_misfits(rows, search, y, x, candidates)
            _count_votes(neighbours, y, x, (rows.phase_cycles[0, y, x], start), count, candidates)
            noise = variance * half_wave * half_wave
            chosen, least, runner = order[r, x], _LARGE, _LARGE
            for j in range(count):
                cost = candidates.misfit[j] + _f(2 * BETA) * (total[x] - candidates.votes[j])
                if sigma < _LARGE:
                    cost += _surface_cost(candidates.height[j] * half_wave, place, sigma * sigma + noise)
                if cost < least:
                    runner, least, chosen = least, cost, start + _f(j)
                elif cost < runner:
                    runner = cost
            order[r, x], best[r, x], second[r, x] = chosen, least, runner


@jit
def _flag_doubt(heights, gaps, cleared, offset, search, flags):  # type: ignore[no-untyped-def]
    for r in range(cleared.shape[0]):
        for x in range(cleared.shape[1]):
            if cleared[r, x] and least_gap(heights, gaps, r + offset, x, search.shared) < search.margin_min:
                flags[r, x] = flags[r, x] | np.uint8(_AMBIGUOUS)


@jit
def _form(rows, choice, search, first, last, out):  # type: ignore[no-untyped-def]
    phase, weight, ratio = rows.phase_cycles, rows.weight, search.ratio
    joint = _f(0) if search.finest else _f(1)
    for y in range(first, last):
        r = y - first
        for x in range(phase.shape[2]):
            bits, k = rows.flags[y, x], choice.order[y, x]
            out.modulation[r, x], out.sigma_nm[r, x] = rows.modulation[y, x], rows.sigma_nm[y, x]
            out.height_nm[r, x] = rows.height_nm[y, x]
            if choice.active[y, x]:
                anchor, variance = phase[0, y, x], _joint_variance(weight, ratio, y, x)
                misfit, shift = order_misfit(phase[:, y, :], weight[:, y, :], ratio, anchor + k, variance, x)
                if k != rows.order[y, x]:
                    out.height_nm[r, x] = (anchor + k + joint * shift) * search.half_wave_nm
                    bits = bits | np.uint8(_REFINED)
                bits = bits & ~np.uint8(_AMBIGUOUS)
                margin = choice.second[y, x] - choice.best[y, x]
                if (margin < search.margin_min) | (misfit > search.misfit_max):
                    bits = bits | np.uint8(_AMBIGUOUS)
            out.flags[r, x] = bits
