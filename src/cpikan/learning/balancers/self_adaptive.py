"""Self-adaptive weights: every point's weight climbs where its residual stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cpikan.errors import InputError
from cpikan.learning.balancers.point_balancer import PointBalancer, Weights, present_weights, relative, squares
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective


@dataclass(frozen=True)
class SelfAdaptive(PointBalancer):
    """Climb the gradient of the cost by the weights, with the mask lambda^2, while the method descends by the parameters.

    With lambda on residuals the cost of a point is lambda^2 r^2 / 2 and its slope lambda r^2; a step is ``rate`` at the point
    of the steepest slope of each term, so that it does not depend on the scale of residuals. Weights begin at 1 and never
    fall (McClenny and Braga-Neto, Self-adaptive physics-informed neural networks, 2023). The goal is a saddle point: for
    methods that follow the gradient alone.
    """

    rate: float = 0.05
    ascends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise InputError(f"self-adaptive weights at rate {self.rate}: give more than 0")

    def weights(self, plain: Objective, field: nn.Module, state: State) -> tuple[Weights, State]:
        """Climb one step; at the start weights are 1."""
        found = {}
        for term in plain.terms:
            now = present_weights(plain, state, term)
            if state:
                slope = now * squares(plain, field, term, bare=False)
                now = now + (self.rate * relative(slope) if float(slope.max()) > 0 else 0.0)
            found[term.name] = now
        return found, {}
