"""Kernel traces: rows of the Jacobian that are equally long in every term."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cpikan.learning.balancers.mean_squares import MeanSquares
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, linearise_term, thinned
from cpikan.learning.unknowns import is_linear


@dataclass(frozen=True)
class KernelTraces(MeanSquares):
    """Make the rows of every term equally long in mean square, per point.

    Squared, the weight is the inverse of the mean of |dr/dparameters|^2, the trace of the neural tangent kernel's block
    (Wang, Yu and Perdikaris 2022), divided by the number of points; a condition's own weight multiplies it. Parameters are
    those of the output, or all of a field that is not linear in some of them.
    """

    def update(self, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Weigh the terms anew by the traces of their kernels, from the Jacobian."""
        plain, _ = super().update(objective, field, state)
        weights, subset = dict(plain.weights), "output" if is_linear(field) else "all"
        for term in objective.terms:
            at = objective.sets[term.name]
            if term.kind == "residual":
                _, jacobian = linearise_term(field, term, thinned(term, at), subset)
                trace = float(jacobian.square().sum(dim=-1).mean())
                if trace > 0:
                    weights[term.name] = (trace * at.rows) ** -0.5 * term.user_weight
        return objective.reweighted(weights), state


KERNEL_TRACES = KernelTraces()
