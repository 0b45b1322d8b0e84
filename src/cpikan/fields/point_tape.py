"""PointTape: the jet of any field with the rows of a Jacobian, each point with parameters of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from cpikan.fields.functional import functional, named_parameters, parameter_vector
from cpikan.fields.protocol import Jet, Second


class PointTape:
    """The jet of a single field at points (B, d), as a function of B copies of its parameters.

    A point's residual depends on its own copy alone, so one pass back gives the rows of all points: what a loop over
    residuals takes B passes for. Costs B copies of the parameters, as much as the Jacobian itself.
    """

    def __init__(self, field: nn.Module, x: Tensor, second: Second = "axes") -> None:
        jet = functional(field, "jet")

        def one(vector: Tensor, point: Tensor) -> Any:
            return tuple(jet(named_parameters(field, vector), point, second))

        self._copies = parameter_vector(field).expand(len(x), -1).clone().requires_grad_()
        with torch.enable_grad():
            self.jet = Jet(*vmap(one)(self._copies, x))

    def rows(self, residual: Tensor) -> Tensor:
        """Compute dr/dparameters (B, P) of residuals (B,) made from ``jet``, in the order of ``parameter_vector``."""
        if not residual.requires_grad:  # as a part of a weak form that has the data alone
            return torch.zeros_like(self._copies)
        return torch.autograd.grad(
            residual.sum(), self._copies, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]
