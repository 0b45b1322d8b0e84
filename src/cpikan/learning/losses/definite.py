"""Whether a cost with an energy has a minimum: the curvature of the cost on polynomials."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet, Second
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.objective import make_objective
from cpikan.learning.samplers.points import Points
from cpikan.learning.trust.polynomials import polynomials_on
from cpikan.physics.problem import Problem

_FUNCTIONS = {1: 24, 2: 60, 3: 80}
_POINTS = {1: 200, 2: 900, 3: 2000}
_NEGATIVE = 1e-9  # of the largest curvature: rounding


class _Span(nn.Module):
    """Sums of basis functions: fields by their coefficients (K,), which may change."""

    def __init__(self, basis: Any) -> None:
        super().__init__()
        self._basis, self.coefficients = basis, torch.zeros(len(basis), dtype=torch.float64)
        self._known = WeakTensorKeyDictionary()  # the basis at points that come again

    def jet(self, x: Tensor, second: Second) -> Jet:
        """Evaluate the sum with its derivatives."""
        known = self._known.setdefault(x, {})
        if second not in known:
            known[second] = self._basis.jet(x, second)
        parts = (torch.tensordot(part, self.coefficients, ([1], [0])) for part in known[second])
        return Jet(*(part.unsqueeze(1) for part in parts))


def check_definite(posed: Problem) -> None:
    """Raise InputError where the cost of a posed problem falls for ever along a polynomial.

    Its Hessian on polynomials is indefinite then. Only quadratic costs of one output are tried: others may be curved
    downwards somewhere and still have a minimum.
    """
    if posed.outputs != 1 or posed.dimension not in _FUNCTIONS:
        return
    basis = polynomials_on(posed.region, _FUNCTIONS[posed.dimension])
    sets, _ = Points(_POINTS[posed.dimension], 40 * len(posed.region.parts)).init(posed)
    objective = MEAN_SQUARES.init(make_objective(posed, sets), nn.Module())[0]

    span = _Span(basis)

    def gradient(at: Tensor) -> Tensor:
        span.coefficients = at.clone().requires_grad_()
        return torch.autograd.grad(objective.cost(span), span.coefficients)[0]

    first = gradient(torch.zeros(len(basis), dtype=torch.float64))
    unit = torch.eye(len(basis), dtype=torch.float64)
    curvature = torch.stack([gradient(one) - first for one in unit])
    drawn = torch.randn(len(basis), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size = float(curvature.abs().max())
    if not torch.allclose(curvature @ drawn, gradient(drawn) - first, rtol=1e-6, atol=1e-9 * size * len(basis)):
        return
    values = torch.linalg.eigvalsh(0.5 * (curvature + curvature.mT))
    if float(values[0]) < -_NEGATIVE * float(values[-1].abs()):
        raise InputError(
            f"ritz for {posed.name}: its energy has no minimum, as that of a wave equation beyond its first eigenvalue "
            f"(curvature {float(values[0]):.2g} on polynomials); use --loss-mode strong or weak"
        )
