"""JacobianProducts: products of a field's Jacobian and of its transpose with vectors, without the Jacobian."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from cpikan.learning.objective import Objective


class JacobianProducts:
    """J v and J'w where a field is, J (R, P) that of an objective's residuals (R,) by all parameters.

    J'w is a pass back through the graph of the residuals; as a function of w it is linear, so that J v is its pass back in
    turn (double backward). Both graphs are made once, and no row of J ever is. Raises InputError for a density.
    """

    def __init__(self, objective: Objective, field: nn.Module) -> None:
        objective.need_residuals()
        field = deepcopy(field)  # its parameters stay where they are while the field's own are moved
        self._parameters = list(field.parameters())
        with torch.enable_grad():
            self._residuals = objective.residuals(field)
            self._dual = torch.zeros_like(self._residuals, requires_grad=True)
            self._pulled = self._pull(self._dual, create_graph=True)
        self._look = objective.look
        self.residuals = self._residuals.detach()
        self.rows, self.columns = len(self.residuals), len(self._pulled)

    def transposed(self, dual: Tensor) -> Tensor:
        """Multiply w (R,) by J', (P,)."""
        self._look()
        return self._pull(dual).detach()

    def times(self, vector: Tensor) -> Tensor:
        """Multiply v (P,) by J, (R,)."""
        self._look()
        return torch.autograd.grad(
            self._pulled, self._dual, vector, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]

    def _pull(self, dual: Tensor, *, create_graph: bool = False) -> Tensor:
        parts = torch.autograd.grad(
            self._residuals,
            self._parameters,
            dual,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.cat([part.flatten() for part in parts])
