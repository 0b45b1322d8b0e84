"""Control charts of Shewhart: individuals with moving ranges, or means and ranges of lots; capability beside limits.

Montgomery, Introduction to Statistical Quality Control, chapters 6 and 8; ISO 7870-2. The constants of the range of n normal
values are computed from its distribution, so that lots may be of any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_REACH, _NODES, _GAUSS = 9.0, 601, 80  # the tails beyond hold less than 1e-18
_RUN = 8  # points in a row on one side of the centre: 1 of 128 such runs is chance
_SIGMAS = 3.0


@cache
def range_constants(count: int) -> tuple[float, float]:
    """Compute mean and standard deviation of the range of ``count`` standard normal values (d2 and d3)."""
    from scipy.special import ndtr

    x, step = np.linspace(-2 * _REACH, _REACH, _NODES, retstep=True)  # of the smallest value
    below, above = ndtr(x), ndtr(-x)
    mean = float(step * np.sum(1 - above**count - below**count))
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
    size = _REACH * (nodes[:, None] + 1)  # of the range, up to 2 * _REACH
    within = ndtr(x + size)
    share = 1 - within**count - above**count + np.clip(within - below, 0.0, None) ** count
    square = 2 * _REACH * float(step) * float(weights @ share.sum(axis=1))
    return mean, math.sqrt(square - mean**2)


@dataclass(frozen=True)
class Chart:
    """Points of a chart by their labels, the centre, and the limits of each point."""

    labels: tuple[str, ...]
    values: NDArray[np.float64]
    centre: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def outside(self) -> list[int]:
        """List the points outside their limits."""
        return np.flatnonzero((self.values < self.low) | (self.values > self.high)).tolist()

    @property
    def runs(self) -> list[int]:
        """List the points that end eight and more in a row on one side of the centre."""
        side, length, found = np.sign(self.values - self.centre), 0, []
        for n, one in enumerate(side):
            length = length + 1 if n and one == side[n - 1] and one else int(bool(one))
            if length >= _RUN:
                found.append(n)
        return found


@dataclass(frozen=True)
class Capability:
    """How the spread fits into limits: Cp needs both, Cpk is of the nearer one; None where there is none."""

    cp: float | None
    cpk: float | None


@dataclass(frozen=True)
class Control:
    """The charts of a figure: its ``location`` and its ``spread``, ``sigma`` of a single value within a lot."""

    kind: str
    location: Chart
    spread: Chart
    sigma: float

    def capability(self, low: float | None, high: float | None) -> Capability:
        """Compare the spread with limits."""
        if self.sigma <= 0 or (low is None and high is None):
            return Capability(None, None)
        sides = [] if high is None else [high - self.location.centre]
        sides += [] if low is None else [self.location.centre - low]
        both = None if low is None or high is None else (high - low) / (6 * self.sigma)
        return Capability(both, min(sides) / (3 * self.sigma))


def control(values: Sequence[float], names: Sequence[str], lots: Sequence[str | None]) -> Control | None:
    """Draw up the charts of values in the order in which they were measured; None for fewer than two.

    Means and ranges by lot where there are at least two lots, all of two wafers and more; individuals and moving ranges
    otherwise.
    """
    if len(values) < 2:
        return None
    groups: dict[str, list[float]] = {}
    for value, lot in zip(values, lots, strict=True):
        groups.setdefault(lot or "", []).append(value)
    if len(groups) > 1 and "" not in groups and min(map(len, groups.values())) > 1:
        return _of_lots(groups)
    return _of_individuals(np.asarray(values, np.float64), tuple(names))


def _of_individuals(values: NDArray[np.float64], names: tuple[str, ...]) -> Control:
    moving = np.abs(np.diff(values))
    mean, deviation = range_constants(2)
    sigma = float(moving.mean()) / mean
    location = _chart(names, values, float(values.mean()), np.full(len(values), _SIGMAS * sigma))
    spread = _chart(names[1:], moving, sigma * mean, np.full(len(moving), _SIGMAS * sigma * deviation), least=0.0)
    return Control("individuals and moving ranges", location, spread, sigma)


def _of_lots(groups: dict[str, list[float]]) -> Control:
    counts = np.array([len(group) for group in groups.values()])
    means = np.array([np.mean(group) for group in groups.values()])
    ranges = np.array([np.ptp(group) for group in groups.values()])
    constants = np.array([range_constants(int(count)) for count in counts])
    sigma = float(np.mean(ranges / constants[:, 0]))
    centre = float(np.average(means, weights=counts))
    names = tuple(groups)
    location = _chart(names, means, centre, _SIGMAS * sigma / np.sqrt(counts))
    usual = constants[:, 0] * sigma
    widths = _SIGMAS * sigma * constants[:, 1]
    spread = Chart(names, ranges, float(usual.mean()), np.clip(usual - widths, 0.0, None), usual + widths)
    return Control("means and ranges of lots", location, spread, sigma)


def _chart(
    names: tuple[str, ...],
    values: NDArray[np.float64],
    centre: float,
    width: NDArray[np.float64],
    least: float = -np.inf,
) -> Chart:
    return Chart(names, values, centre, np.clip(centre - width, least, None), centre + width)
