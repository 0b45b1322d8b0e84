"""Demodulated phases of several wavelengths as residuals of a height, without unwrapping.

For raw frames, with light, steps and tilts unknown beside the height, see `cpikan.psi.calibration.surface_fit.frame_residuals`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cpikan.fields.functional import functional, named_parameters
from cpikan.fields.parameter_jacobian import parameter_jacobian
from cpikan.fields.scaled_cpikan import ScaledCPIKAN

_TURN = 2 * math.pi


def phasor_misfit(
    height_nm: Tensor, turns: Tensor, weight: Tensor, nm_per_turn: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute half the squared misfit of predicted phasors, its slope and Gauss-Newton curvature by the height.

    ``height_nm`` (..., B); ``turns`` and ``weight`` (turns^-2, 0: no measurement) (..., L, B); ``nm_per_turn`` (L,) is half of
    each wavelength. Results are (..., B). With D = 2 pi (h / nm_per_turn - turns) the residuals are
    sqrt(weight) / (2 pi) * (sin D, 1 - cos D): near the truth that is the phase error over its sigma, far from it a bounded
    number, and a whole turn makes no difference.
    """
    scale = nm_per_turn.unsqueeze(-1)
    angle = _TURN * (height_nm.unsqueeze(-2) / scale - turns)
    share = weight / _TURN**2
    slope = _TURN / scale
    cost = (share * (1 - torch.cos(angle))).sum(dim=-2)
    return cost, (share * torch.sin(angle) * slope).sum(dim=-2), (share * slope**2).sum(dim=-2)


@dataclass(frozen=True)
class PhasorResiduals:
    """n networks of one shape, each a correction of the height at its own points.

    ``points`` (n, B, d) or (1, B, d); ``base_nm`` (n, B) is what the networks are added to, ``unit_nm`` the height that an
    output of 1 stands for; ``turns`` and ``weight`` (n, L, B) as in `phasor_misfit`. The 2 L residuals of a point share one row
    of the networks' Jacobian, so J'J is a product of B rows instead of 2 L B.
    """

    field: ScaledCPIKAN
    points: Tensor
    base_nm: Tensor
    turns: Tensor
    weight: Tensor
    nm_per_turn: Tensor
    unit_nm: float

    def cost(self, parameters: Tensor) -> Tensor:
        """Compute half the sum of squared residuals of each problem, (n,)."""
        value, _ = self._linear(parameters, jacobian=False)
        return self._misfit(value)[0].sum(dim=-1)

    def normal(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute cost (n,), gradient J'r (n, P) and J'J (n, P, P)."""
        value, jacobian = self._linear(parameters, jacobian=True)
        cost, slope, curve = self._misfit(value)
        jacobian = jacobian * self.unit_nm
        gradient = (slope.unsqueeze(-2) @ jacobian).squeeze(-2)
        return cost.sum(dim=-1), gradient, jacobian.mT @ (curve.unsqueeze(-1) * jacobian)

    def take(self, index: Tensor) -> PhasorResiduals:
        """Select the problems ``index``."""
        points = self.points if len(self.points) == 1 else self.points[index]
        parts = {name: getattr(self, name)[index] for name in ("base_nm", "turns", "weight")}
        return replace(self, points=points, **parts)

    def height_nm(self, parameters: Tensor) -> Tensor:
        """Compute the heights at the points in nm, (n, B)."""
        return self.base_nm + self.unit_nm * self._linear(parameters, jacobian=False)[0]

    def _linear(self, parameters: Tensor, *, jacobian: bool) -> tuple[Tensor, Tensor]:
        if jacobian:
            value, slopes = parameter_jacobian(self.field, self.points, parameters)
            return value.squeeze(-1), slopes.squeeze(-2)
        tensors = named_parameters(self.field, parameters)
        value = functional(self.field)(tensors, self.points)
        return value.squeeze(-1), value

    def _misfit(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height = self.base_nm + self.unit_nm * value
        return phasor_misfit(height, self.turns, self.weight, self.nm_per_turn)
