"""Effects of changes on errors: ratios of paired runs with a sign test, and what two changes do together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

PLAIN = ""  # the name of no change
_LARGEST = 700.0  # of a logarithm: what exp takes
Errors = Mapping[tuple[str, str, int], float]  # by problem, change and seed; infinite where a run failed


@dataclass(frozen=True)
class Contrast:
    """Ratios over pairs of runs: their median, how many are below 1 and above, and the p-value of the sign test."""

    ratio: float
    lower: int
    higher: int
    pairs: int

    @property
    def p_value(self) -> float:
        """Compute how likely so uneven a split, or a more uneven one, is by chance; equal pairs do not count."""
        return sign_test(self.lower, self.higher)


def sign_test(lower: int, higher: int) -> float:
    """Compute the two-sided p-value of the sign test (Arbuthnot 1710; Conover, Practical Nonparametric Statistics)."""
    count = lower + higher
    tail = sum(math.comb(count, k) for k in range(min(lower, higher) + 1))
    return min(1.0, 2 * tail / 2**count)


def contrast(logs: Iterable[float]) -> Contrast | None:
    """Summarise natural logarithms of ratios; None where there are none."""
    bounded = [min(max(one, -_LARGEST), _LARGEST) for one in logs]
    if not bounded:
        return None
    lower, higher = sum(one < 0 for one in bounded), sum(one > 0 for one in bounded)
    return Contrast(math.exp(median(bounded)), lower, higher, len(bounded))


def effect(errors: Errors, change: str, problem: str | None = None, beside: str = PLAIN) -> Contrast | None:
    """Compare the runs of a change with those of another, problem by problem and seed by seed.

    Both failing counts as equal. None where they have no pair; ``problem`` None takes all.
    """
    return contrast(
        _difference(one, errors[place, beside, seed])
        for (place, name, seed), one in errors.items()
        if name == change and problem in (None, place) and (place, beside, seed) in errors
    )


def interaction(errors: Errors, first: str, second: str, both: str) -> Contrast | None:
    """Compare what two changes do together with the product of what each does alone: below 1 they help each other.

    Runs of which one failed are left out; None where nothing is left.
    """
    logs = []
    for (place, name, seed), one in errors.items():
        if name != both:
            continue
        others = [errors.get((place, change, seed), math.inf) for change in (PLAIN, first, second)]
        if all(math.isfinite(value) for value in (one, *others)):
            plain, a, b = map(_log, others)
            logs.append((_log(one) - a) - (b - plain))  # exactly 0 where one of the changes changes nothing
    return contrast(logs)


def _difference(a: float, b: float) -> float:
    return 0.0 if a == b else _log(a) - _log(b)


def _log(error: float) -> float:
    return math.log(max(error, 1e-300)) if error < math.inf else math.inf
