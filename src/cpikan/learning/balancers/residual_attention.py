"""Residual-based attention: weights of points that remember where residuals have been large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cpikan.errors import InputError, unknown_name
from cpikan.learning.balancers.point_balancer import (
    PointBalancer,
    Weights,
    present_weights,
    relative,
    squares,
)
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective

Potential = Literal["plain", "quadratic", "exponential"]


@dataclass(frozen=True)
class ResidualAttention(PointBalancer):
    """Let weights of points forget by ``rate`` and take ``rate`` times what the residuals there ask for now.

    "plain": a <- (1 - rate) a + rate |r| / max|r| multiplies residuals (Anagnostopoulos, Toscano, Stergiopulos and
    Karniadakis, Residual-based attention, 2024). The other two are its variational form, where a convex potential of |r| is
    minimised and the squares of the weights are the density Phi'(|r|) with the mean 1 over a term's points, so that terms
    keep their share: "quadratic" has the density |r|, "exponential" exp(|r| / (``temperature`` max|r|)), nearer to the
    largest error (Toscano, Chen, Oommen and Karniadakis 2025). ``rate`` is the paper's 0.01 a step, over ten steps.
    """

    potential: Potential = "plain"
    rate: float = 0.1
    temperature: float = 0.3

    def __post_init__(self) -> None:
        if self.potential not in get_args(Potential):
            raise unknown_name("potential", self.potential, get_args(Potential))
        if not 0 < self.rate <= 1 or not self.temperature > 0:
            raise InputError(
                f"residual attention at rate {self.rate} and temperature {self.temperature}: give 0 < rate <= 1, and more "
                "than 0"
            )

    def weights(self, plain: Objective, field: nn.Module, state: State) -> tuple[Weights, State]:
        """Look at the residuals; at the start weights are 1."""
        found = {}
        for term in plain.terms:
            now = present_weights(plain, state, term)
            if state:
                share = relative(squares(plain, field, term, bare=True).sqrt())
                now = self._followed(now, share)
            found[term.name] = now
        return found, {}

    def _followed(self, now: Tensor, share: Tensor) -> Tensor:
        if self.potential == "plain":
            return (1 - self.rate) * now + self.rate * share
        asked = share if self.potential == "quadratic" else torch.exp((share - 1) / self.temperature)
        density = (1 - self.rate) * now.square() + self.rate * asked / asked.mean()
        # a mean of 1 but for rounding, which would add up; a weight stays a positive number where a residual vanishes
        return (density / density.mean()).clamp_min(math.ulp(1.0)).sqrt()
