"""SharedTape: an objective at one place of the hidden layers, which are evaluated once for all that is asked of it there."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from cpikan.learning.objective import LinearSystem, Objective, half_squares, has_tape, linearise_term, make_tapes
from cpikan.learning.unknowns import output_vector


class SharedTape:
    """Residuals, cost and linear systems of an objective for any output coefficients, behind hidden layers that stay.

    Solving for the output layer, looking at what it left, and linearising by all parameters then evaluate the hidden layers
    once instead of four times. For fields with a tape, until their hidden parameters change.
    """

    def __init__(self, objective: Objective, field: nn.Module) -> None:
        self._objective = objective
        self._tapes = {term.name: make_tapes(field, term, objective.sets[term.name]) for term in objective.terms}
        self._output_at = output_vector(field)
        self._output: LinearSystem | None = None
        self.look, self.affine = objective.look, objective.affine

    @staticmethod
    def takes(objective: Objective, field: nn.Module) -> bool:
        """Tell whether there is a tape of the field, and residuals."""
        return has_tape(field) and all(term.kind == "residual" for term in objective.terms)

    def residuals(self, field: nn.Module) -> Tensor:
        """Evaluate the weighted residuals (R,), without a graph."""
        return self.linearise(field, "output").residuals

    def cost(self, field: nn.Module) -> Tensor:
        """Evaluate the cost ()."""
        return half_squares(self.residuals(field))

    def linearise(self, field: nn.Module, subset: Literal["all", "output"] = "all") -> LinearSystem:
        """Linearise by all parameters, or by the coefficients of the output and the unknowns."""
        now = output_vector(field)
        if subset == "output":
            if self._output is None or not torch.equal(now, self._output_at):
                self._output, self._output_at = self._stacked(field, subset), now
            return self._output
        for tape in (tape for tapes in self._tapes.values() for tape in tapes):
            tape.renew()  # even for equal coefficients: torch refuses a graph through what was written to since
        return self._stacked(field, subset)

    def _stacked(self, field: nn.Module, subset: str) -> LinearSystem:
        sets = self._objective.sets
        return self._objective.stacked(
            lambda term: linearise_term(field, term, sets[term.name], subset, tapes=self._tapes[term.name])
        )
