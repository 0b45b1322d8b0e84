"""The forward model of phase-shifting interferometry, I = A + B cos(4 pi h / lambda + delta_k + t_k . r), as residuals.

On phasors: what demodulated phases of several wavelengths say of a height, without unwrapping. On raw frames: A, B, steps
and tilts are unknown beside the height, for frames too few or too disturbed to be demodulated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.functional import functional, named_parameters
from cpikan.fields.parameter_jacobian import parameter_jacobian
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.fields.tensor_chebyshev import basis_1d

_TURN = 2 * math.pi


def phasor_misfit(
    height_nm: Tensor, turns: Tensor, weight: Tensor, nm_per_turn: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Half the squared distance of predicted from measured phasors, its slope and its Gauss-Newton curvature by the height.

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
        """Half the sum of squared residuals of each problem, (n,)."""
        value, _ = self._linear(parameters, jacobian=False)
        return self._misfit(value)[0].sum(dim=-1)

    def normal(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cost (n,), gradient J'r (n, P) and J'J (n, P, P)."""
        value, jacobian = self._linear(parameters, jacobian=True)
        cost, slope, curve = self._misfit(value)
        jacobian = jacobian * self.unit_nm
        gradient = (slope.unsqueeze(-2) @ jacobian).squeeze(-2)
        return cost.sum(dim=-1), gradient, jacobian.mT @ (curve.unsqueeze(-1) * jacobian)

    def take(self, index: Tensor) -> PhasorResiduals:
        """The problems ``index`` alone."""
        points = self.points if len(self.points) == 1 else self.points[index]
        parts = {name: getattr(self, name)[index] for name in ("base_nm", "turns", "weight")}
        return replace(self, points=points, **parts)

    def height_nm(self, parameters: Tensor) -> Tensor:
        """Heights at the points, (n, B)."""
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


@dataclass(frozen=True)
class FrameModelFit:
    """What the raw frames of one wavelength are made of: a layout of the parameter vector, and residuals with Jacobian.

    ``points`` (B, 2) in [-1, 1]; ``frames`` (K, B) in units of their noise; ``light`` is the number of Chebyshev modes per
    axis of A and of B, ``shape`` that of the phase. Parameters: A's modes, B's modes, K - 1 steps (rad), K - 1 tilts (rad per
    unit, y and x), the modes of the phase (rad). The first frame is the reference. The phase's constant mode is included:
    steps are relative to frame 0, so it is determined.
    """

    points: Tensor
    frames: Tensor
    light: int
    shape: int
    tilted: bool = True

    def __post_init__(self) -> None:
        if self.frames.ndim != 2 or len(self.frames) < 2 or self.frames.shape[1] != len(self.points):
            raise InputError(
                f"frames of shape {tuple(self.frames.shape)} at {len(self.points)} points: give at least two frames (K, B)"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Parameters of A, B, steps, tilts and phase."""
        later = len(self.frames) - 1
        return (self.light**2, self.light**2, later, 2 * later if self.tilted else 0, self.shape**2)

    def start(self, steps_rad: Tensor, phase_modes: Tensor) -> Tensor:
        """A vector from nominal steps (K - 1,) and a first phase (shape^2,): flat light read off the frames."""
        mean, spread = self.frames.mean(), self.frames.std() * math.sqrt(2)
        parts = [torch.zeros(n, dtype=self.frames.dtype) for n in self.sizes]
        parts[0][0], parts[1][0] = mean, spread
        parts[2][:], parts[4][:] = steps_rad, phase_modes
        return torch.cat(parts)

    def residuals(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals (n, K B) and Jacobian (n, K B, P) of parameters (n, P)."""
        a, b, steps, tilts, modes = parameters.split(self.sizes, dim=-1)
        bright, form = self._products(self.light), self._products(self.shape)
        mean, power, phase = a @ bright.mT, b @ bright.mT, modes @ form.mT
        rows, columns = [], []
        zero = torch.zeros(*mean.shape, len(steps.mT), dtype=mean.dtype)
        for k in range(len(self.frames)):
            angle = phase
            step, tilt = zero.clone(), torch.zeros(*mean.shape, self.sizes[3], dtype=mean.dtype)
            if k:
                angle = angle + steps[:, k - 1 : k]
                step[..., k - 1] = 1
                if self.tilted:
                    angle = angle + tilts[:, 2 * k - 2 : 2 * k] @ self.points.mT
                    tilt[..., 2 * k - 2 : 2 * k] = self.points
            fall = (-power * torch.sin(angle)).unsqueeze(-1)
            wave = torch.cos(angle).unsqueeze(-1)
            rows.append(mean + power * wave.squeeze(-1) - self.frames[k])
            lead = bright.expand(*mean.shape, -1)
            columns.append(torch.cat([lead, wave * bright, fall * step, fall * tilt, fall * form], dim=-1))
        return torch.cat(rows, dim=-1), torch.cat(columns, dim=-2)

    def phase_rad(self, parameters: Tensor, points: Tensor | None = None) -> Tensor:
        """The fitted phase (..., B) at ``points`` in [-1, 1], by default those of the frames."""
        modes = parameters.split(self.sizes, dim=-1)[4]
        return modes @ self._products(self.shape, self.points if points is None else points).mT

    def _products(self, modes: int, points: Tensor | None = None) -> Tensor:
        """T_i(y) T_j(x), (B, modes^2)."""
        where = self.points if points is None else points
        y, x = basis_1d(where[:, 0], modes), basis_1d(where[:, 1], modes)
        return (y[:, :, None] * x[:, None, :]).flatten(-2)
