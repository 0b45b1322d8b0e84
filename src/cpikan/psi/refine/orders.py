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
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpikan.psi.kernels.cpu_blocks import _misfit_of
from cpikan.psi.kernels.cpu_phasors import jit
from cpikan.psi.kernels.model import HeightRows, OrderSearch
from cpikan.psi.model.flags import Flag
from cpikan.psi.refine.protocol import CELL_PX, SurfaceRows, TurnRows

RADIUS = 3  # of the window of neighbours, pixels
ROUNDS = 3
HALO = RADIUS * ROUNDS
BETA = 0.3  # of the Potts model: 48 neighbours that agree weigh 29 units of chi squared
SURFACE_CAP = 12.0  # units of chi squared that a surface can weigh at most
OPEN_MARGIN = 2 * BETA * ((2 * RADIUS + 1) ** 2 - 1) + SURFACE_CAP  # a pixel surer than this cannot be overruled
_INVALID, _AMBIGUOUS, _REFINED = int(Flag.INVALID), int(Flag.AMBIGUOUS), int(Flag.REFINED)
_f = np.float32
_PART_ROWS = 16  # of a thread's work
Share = Callable[[Callable[[slice], Any], Iterable[slice]], Iterable[Any]]


@dataclass(frozen=True)
class OrderLimits:
    """The order search in turns of the anchor, as the compiled loops take it."""

    ratio: tuple[np.float32, ...]
    half_wave_nm: float
    low: float
    high: float
    margin_min: float
    misfit_max: float
    finest: bool

    @classmethod
    def of(cls, search: OrderSearch) -> OrderLimits:
        """What the search of a stack allows."""
        half = search.half_wave_nm
        return cls(
            tuple(np.float32(r) for r in search.ratio),
            half,
            search.low_nm / half,
            (search.low_nm + search.range_nm) / half,
            search.margin_min,
            search.misfit_max,
            search.finest,
        )

    @property
    def candidates(self) -> int:
        return int(np.ceil(self.high - self.low)) + 1


@dataclass
class OrderChoice:
    """Orders on their way: ``order`` and chi squared of it and of the runner-up (rows, W) float32, ``open`` where neighbours
    may change it."""

    order: np.ndarray
    best: np.ndarray
    second: np.ndarray
    open: np.ndarray


def begin(rows: TurnRows, first_row: int, cells: np.ndarray | None) -> OrderChoice:
    """The pixels' own orders; ``cells`` (64-pixel cells of the image, bool) restricts what may change, None: nowhere."""
    with np.errstate(invalid="ignore"):
        unsure = (rows.second - rows.best < np.float32(OPEN_MARGIN)) & ((rows.flags & _INVALID) == 0)
    if cells is not None:
        y = (first_row + np.arange(unsure.shape[0])) // CELL_PX
        unsure &= cells[y][:, np.arange(unsure.shape[1]) // CELL_PX]
    return OrderChoice(rows.order.copy(), rows.best.copy(), rows.second.copy(), unsure)


def decide(
    rows: TurnRows,
    choice: OrderChoice,
    known: tuple[np.ndarray, np.ndarray],
    surface: SurfaceRows,
    limits: OrderLimits,
    part: slice,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One round for the rows ``part``: new order, its cost and the runner-up's, (rows, W); the others are as they were.

    Neighbours are read from ``known``, what `levels` made of ``choice`` before the round, so parts may be worked on at the
    same time.
    """
    order, best, second = (a[part].copy() for a in (choice.order, choice.best, choice.second))
    _decide(
        rows.turns,
        rows.weight,
        *known,
        choice.open,
        surface.height_nm,
        surface.sigma_nm,
        limits.ratio,
        np.array([limits.low, limits.high, limits.half_wave_nm, limits.margin_min], np.float32),
        limits.candidates,
        part.start,
        part.stop,
        order,
        best,
        second,
    )
    return order, best, second


def levels(
    rows: TurnRows, choice: OrderChoice, ratio: tuple[np.float32, ...], share: Share = map
) -> tuple[np.ndarray, np.ndarray]:
    """Height of every pixel in turns of the anchor, and how sure it is of it, 0 (even odds, or no pixel) to 1."""
    level, sure = np.empty_like(choice.order), np.empty_like(choice.order)

    def part(where: slice) -> None:
        parts = (a[where] for a in (rows.flags, choice.order, choice.best, choice.second))
        _levels(rows.turns[:, where], rows.weight[:, where], *parts, ratio, level[where], sure[where])

    list(share(part, _parts(len(level))))
    return level, sure


def reopen(choice: OrderChoice, changed: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Pixels for the next round: those ``still`` open that have a changed pixel in their window, or are one."""
    if not changed.any():
        return np.zeros_like(still)
    wide = np.pad(changed, RADIUS)
    side = 2 * RADIUS + 1
    tall = np.logical_or.reduce([wide[k : k + changed.shape[0]] for k in range(side)])
    return still & np.logical_or.reduce([tall[:, k : k + changed.shape[1]] for k in range(side)])


def settle(
    rows: TurnRows, choice: OrderChoice, surface: SurfaceRows, limits: OrderLimits, share: Share = map
) -> OrderChoice:
    """All rounds; ``share`` maps a function over parts of the rows, on threads if it likes."""
    unsure, parts = choice.open, _parts(len(choice.order))
    for _ in range(ROUNDS):
        if not choice.open.any():
            break
        known, old = levels(rows, choice, limits.ratio, share), choice.order
        found = list(share(functools.partial(decide, rows, choice, known, surface, limits), parts))
        choice.order, choice.best, choice.second = (np.concatenate(part) for part in zip(*found, strict=True))
        choice.open = reopen(choice, choice.order != old, unsure)
    choice.open = unsure
    return choice


def _parts(count: int) -> list[slice]:
    return [slice(a, min(a + _PART_ROWS, count)) for a in range(0, count, _PART_ROWS)]


@jit
def _levels(turns, weight, flags, order, best, second, ratio, level, sure):  # type: ignore[no-untyped-def]
    for y in range(order.shape[0]):
        for x in range(order.shape[1]):
            total = _f(0)
            for i in range(len(ratio)):
                total += weight[i, y, x] * (ratio[i] * ratio[i])
            anchor = turns[0, y, x] + order[y, x]
            shift = _misfit_of(turns[:, y, :], weight[:, y, :], ratio, anchor, _f(1) / total, x)[1]
            gap = min(max(second[y, x] - best[y, x], _f(0)), _f(40))
            odds = np.exp(_f(-0.5) * gap)
            absent = flags[y, x] & _INVALID
            level[y, x] = _f(1e9) if absent else anchor + shift
            sure[y, x] = _f(0) if absent else (_f(1) - odds) / (_f(1) + odds)


@jit
def _agreement(level, sure, y, trust, against):  # type: ignore[no-untyped-def]
    """How sure all neighbours of a row's pixels are together, and those that are on another height."""
    height, width = level.shape
    own = level[y]
    for x in range(width):
        trust[x] = _f(0)
        against[x] = _f(0)
    for v in range(max(0, y - RADIUS), min(height, y + RADIUS + 1)):
        there, much = level[v], sure[v]
        for d in range(-RADIUS, RADIUS + 1):
            if v == y and d == 0:
                continue
            first, last = np.uintp(max(0, -d)), np.uintp(width - max(0, d))
            for x in range(first, last):
                weight = much[x + d]
                trust[x] += weight
                against[x] += weight if abs(there[x + d] - own[x]) > _f(0.5) else _f(0)


@jit
def _decide(  # type: ignore[no-untyped-def]
    turns,
    weight,
    level,
    sure,
    unsure,
    surface,
    sigma,
    ratio,
    limits,
    candidates,
    first,
    last,
    order,
    best,
    second,
):
    low, high, half_wave, margin_min = limits[0], limits[1], limits[2], limits[3]
    height, width = level.shape
    votes, misfit, place_of = (
        np.empty(candidates, np.float32),
        np.empty(candidates, np.float32),
        np.empty(candidates, np.float32),
    )
    trust, against = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(first, last):
        if not unsure[y].any():
            continue
        r = y - first
        _agreement(level, sure, y, trust, against)
        for x in range(width):
            if not unsure[y, x]:
                continue
            place, spread = surface[y, x], sigma[y, x]
            off = _f(0)
            if spread < _f(1e30):
                off = (level[y, x] * half_wave - place) / spread
                off = min(off * off, _f(SURFACE_CAP))
            # nothing can gain more than what stands against the pixel's order: most pixels end here
            if second[r, x] - best[r, x] > _f(2 * BETA) * against[x] + off + margin_min + _f(1):
                continue
            total = _f(0)
            for i in range(len(ratio)):
                total += weight[i, y, x] * ratio[i] * ratio[i]
            total = _f(1) / total
            noise = total * half_wave * half_wave
            anchor = turns[0, y, x]
            start = np.ceil(low - anchor)
            count = 0
            for j in range(candidates):
                if j > 0 and anchor + start + _f(j) >= high:
                    break
                misfit[j], shift = _misfit_of(turns[:, y, :], weight[:, y, :], ratio, anchor + start + _f(j), total, x)
                place_of[j] = anchor + start + _f(j) + shift
                votes[j] = _f(0)
                count += 1
            for v in range(max(0, y - RADIUS), min(height, y + RADIUS + 1)):
                for u in range(max(0, x - RADIUS), min(width, x + RADIUS + 1)):
                    about = np.rint(level[v, u] - anchor - start)  # corrections move it by one at most
                    if (v == y and u == x) or not (_f(-1) <= about <= _f(count)):
                        continue
                    near, least = 0, _f(0.5)
                    for j in range(max(0, int(about) - 1), min(count, int(about) + 2)):
                        if abs(level[v, u] - place_of[j]) <= least:
                            near, least = j, abs(level[v, u] - place_of[j])
                    votes[near] += sure[v, u] if least < _f(0.5) else _f(0)
            found, runner = _f(1e30), _f(1e30)
            chosen = order[r, x]
            for j in range(count):
                k = start + _f(j)
                cost = misfit[j] + _f(2 * BETA) * (trust[x] - votes[j])
                if spread < _f(1e30):
                    away = place_of[j] * half_wave - place
                    cost += min(away * away / (spread * spread + noise), _f(SURFACE_CAP))
                if cost < found:
                    runner, found, chosen = found, cost, k
                elif cost < runner:
                    runner = cost
            order[r, x], best[r, x], second[r, x] = chosen, found, runner


def form(rows: TurnRows, choice: OrderChoice, limits: OrderLimits, part: slice, out: HeightRows) -> None:
    """Heights, sigma, modulation and flags of the rows ``part`` from the phases and the orders chosen, into ``out``.

    ``choice`` holds costs, priors included; the ambiguous flag says what is left of the doubt after them, and a chosen
    order that does not fit its phases. Flag 16 marks orders that are not the pixel's own.
    """
    _form(
        rows.turns,
        rows.weight,
        rows.height_nm,
        rows.sigma_nm,
        rows.modulation,
        rows.flags,
        rows.order,
        choice.order,
        choice.best,
        choice.second,
        choice.open,
        limits.ratio,
        np.array([0, 0, limits.margin_min, limits.misfit_max], np.float32),
        np.float32(limits.half_wave_nm),
        limits.finest,
        part.start,
        part.stop,
        *out,
    )


@jit
def _form(  # type: ignore[no-untyped-def]
    turns,
    weight,
    own_height,
    own_sigma,
    power,
    flags_in,
    own,
    order,
    best,
    second,
    unsure,
    ratio,
    level,
    half_wave,
    finest,
    first,
    last,
    height,
    sigma,
    modulation,
    flags,
):
    margin_min, misfit_max = level[2], level[3]
    joint = _f(0) if finest else _f(1)
    for y in range(first, last):
        r = y - first
        for x in range(flags_in.shape[1]):
            bits, k = flags_in[y, x], order[y, x]
            modulation[r, x], height[r, x], sigma[r, x] = power[y, x], own_height[y, x], own_sigma[y, x]
            if unsure[y, x]:
                total = _f(0)
                for i in range(len(ratio)):
                    total += weight[i, y, x] * (ratio[i] * ratio[i])
                anchor = turns[0, y, x]
                misfit, shift = _misfit_of(turns[:, y, :], weight[:, y, :], ratio, anchor + k, _f(1) / total, x)
                if k != own[y, x]:
                    height[r, x] = (anchor + k + joint * shift) * half_wave
                    bits = bits | np.uint8(_REFINED)
                bits = bits & ~np.uint8(_AMBIGUOUS)
                if (second[y, x] - best[y, x] < margin_min) | (misfit > misfit_max):
                    bits = bits | np.uint8(_AMBIGUOUS)
            flags[r, x] = bits


def draw(surface: SurfaceRows, out: HeightRows) -> None:
    """Put the surface in place of the heights of ``out``, rows of the same image, wherever it knows anything."""
    known = np.isfinite(surface.sigma_nm) & ((out.flags & _INVALID) == 0)
    np.copyto(out.height_nm, surface.height_nm, where=known)
    np.copyto(out.sigma_nm, surface.sigma_nm, where=known)
