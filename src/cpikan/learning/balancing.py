"""Balancing: weights of the terms of an objective, at the start and anew every so many steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, linearise_term, thinned


class Balancer(Protocol):
    """Weights of an objective's terms: at the start, and anew every ``every`` steps (0: never); with a plain state."""

    @property
    def every(self) -> int: ...

    def init(self, objective: Objective, field: nn.Module) -> tuple[Objective, State]: ...

    def update(self, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]: ...


@dataclass(frozen=True)
class MeanSquares:
    """Weigh every term by its points alone, so that its residuals count by their mean square."""

    every: int = 0

    def init(self, objective: Objective, field: nn.Module) -> tuple[Objective, State]:
        """Weigh the terms of the objective at the start."""
        return self.update(objective, field, {})

    def update(self, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Weigh each residual term by its user weight / sqrt(number of points); a density is a mean already."""
        weights = {}
        for term in objective.terms:
            count = len(objective.sets[term.name].points)
            weights[term.name] = term.user_weight * (count**-0.5 if term.kind == "residual" else 1.0)
        return objective.reweighted(weights), state


@dataclass(frozen=True)
class KernelTraces(MeanSquares):
    """Make the rows of every term equally long in mean square, per point.

    Squared, the weight is the inverse of the mean of |dr/dparameters|^2, the trace of the neural tangent kernel's block
    (Wang, Yu and Perdikaris 2022), divided by the number of points; a condition's own weight multiplies it. Parameters are
    those of the output.
    """

    def update(self, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Weigh the terms anew by the traces of their kernels, from the Jacobian by the output coefficients."""
        plain, _ = super().update(objective, field, state)
        weights = dict(plain.weights)
        for term in objective.terms:
            at = objective.sets[term.name]
            if term.kind == "residual":
                _, jacobian = linearise_term(field, term, thinned(term, at), "output")
                trace = float(jacobian.square().sum(dim=-1).mean())
                if trace > 0:
                    weights[term.name] = (trace * len(at.points)) ** -0.5 * term.user_weight
        return objective.reweighted(weights), state


MEAN_SQUARES, KERNEL_TRACES = MeanSquares(), KernelTraces()
