"""Mean squares: every term counts by the mean square of its residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective


@dataclass(frozen=True)
class MeanSquares:
    """Weigh every term by its points alone, so that its residuals count by their mean square."""

    every: int = 0
    ascends: ClassVar[bool] = False

    def init(self, objective: Objective, field: nn.Module) -> tuple[Objective, State]:
        """Weigh the terms of the objective at the start."""
        return self.update(objective, field, {})

    def update(self, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Weigh each residual term by its user weight / sqrt(number of rows); a density is a mean already."""
        weights = {}
        for term in objective.terms:
            count = objective.sets[term.name].rows
            weights[term.name] = term.user_weight * (count**-0.5 if term.kind == "residual" else 1.0)
        return objective.reweighted(weights), state

    def lifted(self, objective: Objective, state: State) -> Objective:
        """Take the balancer's weights off the points; here there are none."""
        return objective

    def moved(self, before: Objective, objective: Objective, state: State) -> tuple[Objective, State]:
        """Put the balancer's weights on other points; here there are none."""
        return objective, state


MEAN_SQUARES = MeanSquares()
