"""How far apart the phases of two fringe orders are at least."""

from __future__ import annotations

import numpy as np


def square_distance(ratio: np.ndarray, orders: int) -> float:
    """Compute the least square distance (cycles^2) of the phases that two of ``orders`` neighbouring orders explain.

    ``ratio`` (L,): anchor wavelength over each, 1 first. A step of d orders moves the phases by d ratio; the height is free, by
    t - d turns, at the price of the anchor's own phase, and all other phases wrap:

        min over 1 <= d < orders and t of (t - d)^2 + sum over i >= 1 of (t ratio_i - nearest integer)^2

    Between half integers of all t ratio_i that is a parabola, whose least value is worked out. Where phases weigh at least w
    (cycles^-2) the chi squared of such a difference is at least w times that. Infinite for one order.
    """
    ratio = np.asarray(ratio, np.float64)
    others, steps = ratio[1:], np.arange(1, orders, dtype=np.float64)
    if not steps.size:
        return np.inf
    # the least value is at most that of t = d, a quarter for each other wavelength, and so is (t - d)^2
    reach = 0.5 * np.sqrt(len(others))
    ends = [(np.arange(np.floor(b * (1 - reach)), np.ceil(b * (orders + reach)) + 1) + 0.5) / b for b in others]
    edges = np.unique(np.concatenate([[1 - reach, orders + reach], *ends]))
    whole = np.rint(np.multiply.outer(others, (edges[1:] + edges[:-1]) / 2))  # integers of every piece
    first = np.searchsorted(edges[1:], steps - reach)
    count = np.searchsorted(edges[:-1], steps + reach) - first  # of the pieces within reach of each step
    d = np.repeat(np.arange(len(steps)), count)
    piece = np.arange(len(d)) + np.repeat(first - np.cumsum(count) + count, count)
    integers = whole[:, piece]
    t = (steps[d] + others @ integers) / (1 + others @ others)
    squares = (t - steps[d]) ** 2 + ((others[:, None] * t - integers) ** 2).sum(axis=0)
    return float(squares.min())
