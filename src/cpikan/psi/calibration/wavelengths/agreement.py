"""How well the wavelengths agree on one height: the misfit that is there, against that of noise and of unrelated phases.

The misfit saturates: an order is always found that leaves little. So the phase error that explains a misfit is found by
drawing pixels with more and more of it, and searching their orders as those of the data were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.calibration.wavelengths.alignment import Alignment, Samples, Search, trimmed_mean

_DRAWN = 1500  # pixels
_ORDERS = 400.0  # at most, of the range in which they are drawn
_SEED = 20
_UNRELATED = 0.75  # of the misfit of unrelated phases, from which nothing agrees
_TELLING = 2.0  # misfit of unrelated phases from which a misfit says anything
_SATURATED = 0.9  # expected misfit, drawn to 4 %, from which it is not one
_SIMPLE = 1.5  # misfit below which what is more than noise is phase error, one to one
_FACTORS = np.geomspace(1.3, 3000.0, 14)  # of the variance


@dataclass(frozen=True)
class Agreement:
    """``misfit`` is chi squared per degree of freedom (1: noise alone), ``expected`` that of noise alone, which is below 1
    where orders lie so close that one of them fits anything, ``worst`` that of the worst region of the image; ``unrelated``
    what phases that have nothing to do with each other would leave. ``excess`` is phase variance beside the noise, in units
    of the noise, that explains the worst region."""

    misfit: float
    expected: float
    worst: float
    unrelated: float
    excess: float

    @property
    def is_none(self) -> bool:
        """Tell whether the wavelengths agree no better than unrelated phases would, where that can be told."""
        return self.unrelated > _TELLING and self.misfit > _UNRELATED * self.unrelated


def agreement(samples: Samples, search: Search, alignment: Alignment, span: float) -> Agreement:
    """Measure the agreement of an alignment over ``span`` turns of the anchor."""
    span = min(span, _ORDERS)
    noise = _drawn_misfit(samples, search, span, 1.0)
    expected = noise if noise < _SATURATED else 1.0
    unrelated = _drawn_misfit(samples, search, span, np.inf)
    worst = max(alignment.misfit, alignment.worst_misfit)
    if worst < _SIMPLE:
        return Agreement(alignment.misfit, expected, worst, unrelated, max(worst - 1.0, 0.0))
    factors = [1.0, *_FACTORS]
    reached = np.maximum.accumulate([noise, *(_drawn_misfit(samples, search, span, factor) for factor in _FACTORS)])
    at = int(np.searchsorted(reached, worst))
    return Agreement(alignment.misfit, expected, worst, unrelated, factors[min(at, len(factors) - 1)] - 1.0)


def _drawn_misfit(samples: Samples, search: Search, span: float, factor: float) -> float:
    """Draw pixels whose phases err by ``factor`` times the variance of the noise (inf: unrelated); their misfit."""
    rng = np.random.default_rng(_SEED)
    pixels = rng.integers(0, samples.turns.shape[1], _DRAWN)
    variance = samples.variance[:, pixels]
    height = rng.uniform(0, span, _DRAWN)
    noise = rng.normal(size=variance.shape)
    if np.isinf(factor):
        turns = rng.uniform(-0.5, 0.5, variance.shape)
    else:
        turns = samples.ratio[:, None] * height + noise * np.sqrt(factor * variance)
    turns = turns - np.rint(turns)
    return trimmed_mean(search(turns, variance, 0.0, span)[2]) / max(len(samples.ratio) - 1, 1)
