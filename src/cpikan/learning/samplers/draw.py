"""Drawing without replacement: fixed in number, with known probabilities (systematic sampling in random order)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]


def inclusion(density: Array, count: int) -> Array:
    """Scale a density (n,) to probabilities of being drawn: their sum is ``count`` <= n, and none is above 1.

    What would be above 1 is drawn for certain, and the rest shares what is left; where the density vanishes everywhere
    else, evenly.
    """
    certain = np.zeros(len(density), dtype=bool)
    while True:
        left, rest = count - int(certain.sum()), np.where(certain, 0.0, density)
        if left and not rest.sum() > 0:
            rest = np.where(certain, 0.0, 1.0)
        scaled = rest * (left / rest.sum()) if left else rest * 0.0
        if not (scaled > 1).any():
            return np.where(certain, 1.0, scaled)
        certain |= scaled >= 1


def draw(probabilities: Array, random: np.random.Generator, strata: Numbers | None = None) -> Numbers:
    """Draw as many numbers of 0 ... n - 1 as the ``probabilities`` (n,) sum up to, each with its own, in random order.

    Systematic sampling (Madow 1949): candidates, in random order, lie side by side on a line, each as long as its
    probability, and what ticks one apart from a random beginning hit is drawn. With ``strata`` (n,) those of a stratum lie
    together: every stratum gets the sum of its probabilities, rounded up or down.
    """
    order = random.permutation(len(probabilities))
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    ends = np.cumsum(probabilities[order])
    count = round(ends[-1])
    ends *= count / ends[-1]
    drawn = order[np.searchsorted(ends, random.random() + np.arange(count), side="right")]
    return drawn if strata is None else random.permutation(drawn)
