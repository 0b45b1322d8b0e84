"""Start: how the coefficients of a layer are drawn, so that values and slopes neither die nor explode with depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np

from cpikan.errors import unknown_name
from cpikan.fields import chebyshev

Rule = Literal["variance", "critical", "glorot"]
_STEEPEST, _FLATTEST, _HALVINGS = -20.0, 40.0, 60  # powers between which the critical one is


@dataclass(frozen=True)
class Start:
    """How coefficients are drawn: the seed, the power ``decay`` with which a degree's share of the variance falls, the rule.

    ``variance`` gives every sum variance 1. ``critical`` does, and finds the power at which a hidden layer keeps the mean
    square of slopes as well. ``glorot`` is the compromise of Glorot and Bengio (2010), degree by degree as Rigas et al.
    (arXiv 2510.23501) have it: it keeps neither of the two alone. Raises InputError for another rule.
    """

    seed: int = 0
    decay: float = 2.0
    rule: Rule = "variance"

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise unknown_name("rule of a start", str(self.rule), get_args(Rule))


START = Start()


@dataclass(frozen=True)
class Inputs:
    """Moments of what enters a layer: E[T_k^2], and E[(dT_k/dz)^2] by the sums z behind it, k = 1 ... degree.

    ``hidden`` tells that those sums are a layer's, of variance 1.
    """

    squares: Callable[[int], np.ndarray]
    slopes: Callable[[int], np.ndarray]
    hidden: bool = False


UNIFORM = Inputs(chebyshev.mean_squares_uniform, chebyshev.mean_slopes_uniform)  # on [-1, 1]
# tanh of normal sums of deviation 1; the other activations differ from its mean square by less than a half
AFTER_TANH = Inputs(chebyshev.mean_squares_after_tanh, chebyshev.mean_slopes_after_tanh, hidden=True)


def shares(start: Start, inputs: Inputs, degree: int) -> np.ndarray:
    """Compute the shares (1 + k)^-decay of the constant and of degree k = 1 ... degree in a variance of 1."""
    power = critical_decay(inputs, degree) if start.rule == "critical" and inputs.hidden else start.decay
    found = (1.0 + np.arange(degree + 1)) ** -power
    return np.asarray(found / found.sum())


def variances(start: Start, inputs: Inputs, degree: int, sides: tuple[int, int]) -> np.ndarray:
    """Compute the variances of a layer's coefficients, the constant's and those of degree k = 1 ... degree.

    Independent coefficients of variance v_k give an output the variance v_0 + inputs sum v_k E[T_k^2], its slopes
    inputs sum v_k E[(dT_k/dz)^2] times the mean square of what they were, and what flows back outputs times that sum.
    ``sides`` are the nodes on both sides of the layer.
    """
    entering, leaving = sides
    size = inputs.squares(degree)
    if start.rule == "glorot":
        return np.append(0.0, 2 / (degree * (entering * size + leaving * inputs.slopes(degree))))
    share = shares(start, inputs, degree)
    return np.append(share[0], share[1:] / (entering * size))


def slope_gain(share: np.ndarray, inputs: Inputs) -> float:
    """Compute the factor by which a layer with these shares multiplies the mean square of slopes."""
    degree = len(share) - 1
    return float((share[1:] * inputs.slopes(degree) / inputs.squares(degree)).sum())


@cache
def critical_decay(inputs: Inputs, degree: int) -> float:
    """Find the power at which the gain of slopes is 1, by bisection: it falls as the power rises."""
    low, high = _STEEPEST, _FLATTEST
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if slope_gain(shares(Start(decay=middle), inputs, degree), inputs) > 1:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
