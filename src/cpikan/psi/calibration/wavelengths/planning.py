"""Height ranges that a set of wavelengths can resolve: the expected rate of wrong fringe orders, before anything is measured.

An order k of the anchor (the shortest wavelength) is confused with k + j when the noise carries the phases past half the
distance between the two in phase space, d_j; the union bound over j is the expected rate (interferometry of several
wavelengths as decoding of a lattice).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import erfc

from cpikan.errors import InputError
from cpikan.units import format_length

ACCEPTED_RATE = 1e-6
_LONGEST_RANGE_NM = 1e7  # no microscope or Fizeau range is longer than 10 mm
MOST_ORDERS = 2**16  # of the shortest wavelength in a range: what is searched per pixel takes time and memory
_ROUNDING = 1e-12
_SAME_DISTANCE = 0.01  # of two squared distances that count as one
_LARGEST_MARGIN = 100.0  # chi squared: with neighbours at any distance a hundredth of it is enough for one in a million


def check_orders(wavelengths_nm: Sequence[float], range_nm: float | tuple[float, float] | None) -> None:
    """Refuse a range that is asked for, a length or limits (low, high), and holds more orders than are searched."""
    if range_nm is None or len(wavelengths_nm) < 2:
        return
    half, length = min(wavelengths_nm) / 2, range_nm[1] - range_nm[0] if isinstance(range_nm, tuple) else range_nm
    if length > MOST_ORDERS * half:
        raise InputError(
            f"a height range of {format_length(length)} has {length / half:.3g} fringe orders of {format_length(2 * half)}: at "
            f"most {MOST_ORDERS} are searched, which is {format_length(MOST_ORDERS * half)}; give a shorter --range, or check "
            "the wavelengths"
        )


def longest_searched_nm(wavelengths_nm: Sequence[float]) -> float:
    """Give the longest range that is searched without being asked for: 10 mm, or as many orders as are searched at all."""
    return min(_LONGEST_RANGE_NM, MOST_ORDERS * min(wavelengths_nm) / 2)


def _farthest_order(wavelengths_nm: Sequence[float], range_nm: float) -> int:
    """Count how many orders two candidates lie apart at most: they fill a range that has no upper end."""
    return max(math.ceil(range_nm / (min(wavelengths_nm) / 2) * (1 - _ROUNDING)) - 1, 0)


def squared_distances(wavelengths_nm: Sequence[float], sigma_rad: Sequence[float], orders: int) -> np.ndarray:
    """Compute the squared distance in noise units between an order and the one j anchor turns away, j = 1..orders.

    The distance is what remains of the phase difference after the height has taken up what it can.
    """
    waves = np.asarray(wavelengths_nm, float)
    sigma = np.asarray(sigma_rad, float)
    ratio = waves.min() / waves
    weight = (2 * np.pi / sigma) ** 2  # per turn squared
    steps = np.arange(1, orders + 1)[:, None] * ratio
    residual = steps - np.rint(steps)
    slope = (weight * ratio * residual).sum(axis=1)
    return (weight * residual**2).sum(axis=1) - slope**2 / (weight * ratio**2).sum()


def smallest_distance_rad(wavelengths_nm: Sequence[float], range_nm: float) -> float:
    """Compute d_min of the wavelengths over a range of heights, in rad of equal phase noise: the figure to maximise."""
    orders = _farthest_order(wavelengths_nm, range_nm)
    if orders < 1:
        return math.inf
    return float(np.sqrt(squared_distances(wavelengths_nm, [1.0] * len(wavelengths_nm), orders).min()))


def expected_wrong_order_rate(wavelengths_nm: Sequence[float], sigma_rad: Sequence[float], range_nm: float) -> float:
    """Bound from above the share of pixels whose order comes out wrong over ``range_nm`` at the given phase noise."""
    orders = _farthest_order(wavelengths_nm, range_nm)
    if orders < 1:
        return 0.0
    return min(1.0, float(_rates(wavelengths_nm, sigma_rad, orders).sum()))


def _rates(wavelengths_nm: Sequence[float], sigma_rad: Sequence[float], orders: int) -> np.ndarray:
    distance = np.sqrt(np.maximum(squared_distances(wavelengths_nm, sigma_rad, orders), 0))
    return erfc(distance / 2 / math.sqrt(2))  # 2 Q(d / 2): a neighbour on either side


def widest_range_nm(
    wavelengths_nm: Sequence[float],
    sigma_rad: Sequence[float],
    rate: float = ACCEPTED_RATE,
    longest_nm: float | None = None,
) -> float:
    """Find the longest range in nm with a wrong-order rate expected below ``rate``; at least one anchor order."""
    half = min(wavelengths_nm) / 2
    longest_nm = longest_searched_nm(wavelengths_nm) if longest_nm is None else longest_nm
    total = np.cumsum(_rates(wavelengths_nm, sigma_rad, max(1, math.floor(longest_nm / half))))
    allowed = int(np.searchsorted(total, rate))
    return (allowed + 1) * half * (1 - 1e-9)  # just below the first order that is too close


def default_range_nm(wavelengths_nm: Sequence[float], sigma_rad: Sequence[float]) -> float:
    """Choose the range in nm that is searched where none is asked for.

    It is the widest that is safe, and at least the one in which no order is closer than the neighbouring one: what the
    noise does to neighbours, no shorter range can mend, for half a wavelength is no range for several wavelengths.
    """
    half = min(wavelengths_nm) / 2
    squared = squared_distances(
        wavelengths_nm, sigma_rad, max(2, math.floor(longest_searched_nm(wavelengths_nm) / half))
    )
    closer = np.flatnonzero(squared[1:] < (1 - _SAME_DISTANCE) * squared[0])
    apart = int(closer[0]) + 2 if closer.size else len(squared)
    return max(widest_range_nm(wavelengths_nm, sigma_rad), apart * half * (1 - 1e-9))


def margin_needed(
    wavelengths_nm: Sequence[float], sigma_rad: Sequence[float], range_nm: float, rate: float = ACCEPTED_RATE
) -> float:
    """Find the runner-up distance (chi squared) above which at most ``rate`` of all pixels have a wrong order.

    With the noise r along the line between two orders d apart, the runner-up's distance is d^2 - 2 d r: a wrong order
    reaches m where r exceeds d / 2 + m / (2 d). Zero where the orders are right without looking.
    """
    orders = _farthest_order(wavelengths_nm, range_nm)
    if orders < 1:
        return 0.0
    distance = np.sqrt(np.maximum(squared_distances(wavelengths_nm, sigma_rad, orders), 1e-12))
    low, high = 0.0, _LARGEST_MARGIN
    if float(erfc(distance / 2 / math.sqrt(2)).sum()) <= rate:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        share = float(erfc((distance / 2 + middle / (2 * distance)) / math.sqrt(2)).sum())
        low, high = (middle, high) if share > rate else (low, middle)
    return high


def rival_orders(
    wavelengths_nm: Sequence[float], sigma_rad: Sequence[float], range_nm: float
) -> tuple[int, int, int, int]:
    """List the four steps between orders that are most easily taken for one another over ``range_nm``."""
    orders = max(4, _farthest_order(wavelengths_nm, range_nm))
    squared = squared_distances(wavelengths_nm, sigma_rad, orders)
    first, second, third, fourth = sorted(int(j) + 1 for j in np.argsort(squared, kind="stable")[:4])
    return first, second, third, fourth
