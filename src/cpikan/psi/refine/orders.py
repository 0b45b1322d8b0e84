"""Integer orders by maximum a posteriori: what a pixel's phases say, what its neighbours say, and a surface.

For every order k of the anchor that the range allows, the cost is

    chi squared of k  +  2 beta (neighbours that chose another height)  +  min((h_k - surface)^2 / sigma^2, cap)

The neighbours' term is that of a Potts model, solved by iterated conditional modes (Besag, J. R. Stat. Soc. B 48, 259
(1986)); a neighbour counts for the order that puts the pixel within half an order of it, as much as it is sure of itself.
Both priors are bounded, so phases that are sure enough overrule them, and a true step is kept: at a straight edge half of
the neighbours are on the pixel's side. The height is formed once, from phases and the order, as the pixel pass forms it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.flags import Flag
from cpikan.psi.kernels.cpu_blocks import _misfit_of
from cpikan.psi.kernels.cpu_phasors import jit
from cpikan.psi.kernels.model import HeightRows, OrderSearch
from cpikan.psi.refine.protocol import CELL_PX, SurfaceRows, TurnRows

RADIUS = 3  # of the window of neighbours, pixels
ROUNDS = 3
HALO = RADIUS * ROUNDS
BETA = 0.25  # of the Potts model: 48 neighbours that agree weigh 24 units of chi squared
SURFACE_CAP = 12.0  # units of chi squared that a surface can weigh at most
OPEN_MARGIN = 2 * BETA * ((2 * RADIUS + 1) ** 2 - 1) + SURFACE_CAP  # a pixel surer than this cannot be overruled
_INVALID, _AMBIGUOUS, _REFINED = int(Flag.INVALID), int(Flag.AMBIGUOUS), int(Flag.REFINED)
_f = np.float32


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
    rows: TurnRows, choice: OrderChoice, surface: SurfaceRows, limits: OrderLimits, part: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One round for the rows ``part``: new order, its cost and the runner-up's, (rows, W); the others are as they were.

    Neighbours are read from ``choice``, which stays as it is, so parts may be worked on at the same time.
    """
    count = part.stop - part.start
    width = choice.order.shape[1]
    new = OrderChoice(*(np.empty((count, width), np.float32) for _ in range(3)), np.empty((0, 0), bool))
    _decide(
        rows.turns,
        rows.weight,
        rows.flags,
        choice.order,
        choice.best,
        choice.second,
        choice.open,
        surface.height_nm,
        surface.sigma_nm,
        limits.ratio,
        np.array([limits.low, limits.high, limits.half_wave_nm], np.float32),
        limits.candidates,
        part.start,
        part.stop,
        new.order,
        new.best,
        new.second,
    )
    return new.order, new.best, new.second


@jit
def _decide(  # type: ignore[no-untyped-def]
    turns,
    weight,
    flags,
    order,
    best,
    second,
    unsure,
    surface,
    sigma,
    ratio,
    limits,
    candidates,
    first,
    last,
    new_order,
    new_best,
    new_second,
):
    low, high, half_wave = limits[0], limits[1], limits[2]
    votes = np.empty(candidates, np.float32)
    height, width = flags.shape
    for y in range(first, last):
        for x in range(width):
            r = y - first
            new_order[r, x], new_best[r, x], new_second[r, x] = order[y, x], best[y, x], second[y, x]
            if not unsure[y, x]:
                continue
            total = _f(0)
            for i in range(len(ratio)):
                total += weight[i, y, x] * ratio[i] * ratio[i]
            total = _f(1) / total
            anchor = turns[0, y, x]
            start = np.ceil(low - anchor)
            for j in range(candidates):
                votes[j] = _f(0)
            trust = _f(0)
            for v in range(max(0, y - RADIUS), min(height, y + RADIUS + 1)):
                for u in range(max(0, x - RADIUS), min(width, x + RADIUS + 1)):
                    if (v == y and u == x) or flags[v, u] & _INVALID:
                        continue
                    # sure of itself: the posterior of its order against the runner-up's, from 0 (even) to 1
                    gap = min(max(second[v, u] - best[v, u], _f(0)), _f(40))
                    odds = np.exp(_f(-0.5) * gap)
                    sure = (_f(1) - odds) / (_f(1) + odds)
                    j = int(np.rint(turns[0, v, u] + order[v, u] - anchor - start))
                    trust += sure
                    if 0 <= j < candidates:
                        votes[j] += sure
            found, runner = _f(1e30), _f(1e30)
            chosen = order[y, x]
            place, spread = surface[y, x], sigma[y, x]
            for j in range(candidates):
                k = start + _f(j)
                if j > 0 and anchor + k >= high:
                    break
                misfit, shift = _misfit_of(turns[:, y, :], weight[:, y, :], ratio, anchor + k, total, x)
                cost = misfit + _f(2 * BETA) * (trust - votes[j])
                if spread < _f(1e30):
                    away = ((anchor + k + shift) * half_wave - place) / spread
                    cost += min(away * away, _f(SURFACE_CAP))
                if cost < found:
                    runner, found, chosen = found, cost, k
                elif cost < runner:
                    runner = cost
            new_order[r, x], new_best[r, x], new_second[r, x] = chosen, found, runner


def form(
    rows: TurnRows, choice: OrderChoice, limits: OrderLimits, part: slice, out: HeightRows
) -> None:
    """Heights, sigma, modulation and flags of the rows ``part`` from the phases and the orders chosen, into ``out``.

    ``choice`` holds costs, priors included; the ambiguous flag says what is left of the doubt after them, and a chosen
    order that does not fit its phases. Flag 16 marks orders that are not the pixel's own.
    """
    _form(
        rows.turns,
        rows.weight,
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
            bits = flags_in[y, x]
            modulation[r, x] = power[y, x]
            if bits & _INVALID:
                height[r, x], sigma[r, x], flags[r, x] = _f(np.nan), _f(np.nan), bits
                continue
            total = _f(0)
            for i in range(len(ratio)):
                total += weight[i, y, x] * (ratio[i] * ratio[i])
            total = _f(1) / total
            anchor, k = turns[0, y, x], order[y, x]
            misfit, shift = _misfit_of(turns[:, y, :], weight[:, y, :], ratio, anchor + k, total, x)
            height[r, x] = (anchor + k + joint * shift) * half_wave
            sigma[r, x] = np.sqrt(_f(1) / weight[0, y, x] if finest else total) * half_wave
            if unsure[y, x]:
                bits = bits & ~np.uint8(_AMBIGUOUS)
                if (second[y, x] - best[y, x] < margin_min) | (misfit > misfit_max):
                    bits = bits | np.uint8(_AMBIGUOUS)
            if k != own[y, x]:
                bits = bits | np.uint8(_REFINED)
            flags[r, x] = bits
