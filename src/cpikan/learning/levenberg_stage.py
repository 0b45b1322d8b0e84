"""Levenberg: all parameters of a field by Levenberg-Marquardt, each step through a QR factor instead of J'J."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.levenberg_marquardt import Settings, advance, begin
from cpikan.learning.normal_equations import _Rows
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason


@dataclass(frozen=True)
class QREquations(_Rows):
    """R of J = Q R and Q'r: the damped step solves min |[R S; sqrt(m)] y + [Q'r; 0]| with S = D^-1/2, step = S y.

    The condition of J enters once, not squared: residuals can fall below 1e-8 of where they started.
    """

    cost: Tensor
    gradient: Tensor
    diagonal: Tensor
    triangle: Tensor
    turned: Tensor

    @classmethod
    def of(cls, residuals: Tensor, jacobian: Tensor) -> QREquations:
        """From r (R,) and J (R, P) of one problem; every part gets a leading axis of one."""
        cost = 0.5 * residuals.square().sum()
        gradient = jacobian.mT @ residuals
        diagonal = jacobian.square().sum(dim=0)
        stacked = torch.cat([jacobian, residuals[:, None]], dim=1)
        triangle = torch.linalg.qr(stacked, mode="r")[1]
        width = jacobian.shape[1]
        parts = (cost, gradient, diagonal, triangle[:width, :width], triangle[:width, width])
        return cls(*(part[None] for part in parts))

    def step(self, damping: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """The damped step (1, P), and whether it is finite (1,)."""
        scale = metric[0].rsqrt()
        width = len(scale)
        below = damping[0].sqrt() * torch.eye(width, dtype=scale.dtype, device=scale.device)
        right = torch.cat([self.turned[0], self.turned.new_zeros(width)])[:, None]
        stacked = torch.cat([torch.cat([self.triangle[0] * scale, below]), right], dim=1)
        if not bool(torch.isfinite(stacked).all()):
            return torch.zeros_like(metric), torch.zeros(1, dtype=torch.bool)
        factor = torch.linalg.qr(stacked, mode="r")[1]
        solved = torch.linalg.solve_triangular(factor[:width, :width], factor[:width, width:], upper=True)
        step = -(scale * solved.squeeze(-1))[None]
        return step, torch.isfinite(step).all(dim=-1)


class FieldRows:
    """The rows of a run as a least-squares problem of one set of parameters (1, P)."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def cost(self, parameters: Tensor) -> Tensor:
        """Half the sum of squares, (1,)."""
        set_parameters(self._run.field, parameters[0])
        with torch.no_grad():
            return 0.5 * self._run.rows.residuals(self._run.field).square().sum()[None]

    def linearise(self, parameters: Tensor) -> QREquations:
        """Residuals and Jacobian, factored."""
        set_parameters(self._run.field, parameters[0])
        return QREquations.of(*self._run.rows.linearise(self._run.field))

    def take(self, index: Tensor) -> FieldRows:
        """There is but one problem."""
        return self


@dataclass(frozen=True)
class Levenberg:
    """Levenberg-Marquardt on all parameters; ends early when held-out residuals rise ``patience`` times as steps go on."""

    iterations: int = 400
    damping: float = 1e-3
    patience: int = 30
    name: str = "levenberg-marquardt"

    def run(self, run: Run) -> StopReason:
        """Iterate; the state that was best at held-out points stays."""
        settings = Settings(iterations=self.iterations, damping=self.damping)
        problem = FieldRows(run)
        state = begin(problem, parameter_vector(run.field)[None], settings)
        best, since, ended = run.best_cost, 0, None
        while int(state.reason) == StopReason.RUNNING and ended is None:
            before = state.parameters
            state = advance(problem, state, settings)
            set_parameters(run.field, state.parameters[0])
            if torch.equal(before, state.parameters):
                ended = run.note(float(state.equations.cost))
                continue
            ended = run.note(float(state.equations.cost), check=True)
            since = 0 if run.best_cost < best else since + 1
            best = run.best_cost
            if since >= self.patience:
                ended = StopReason.HELD_OUT
        return ended if ended is not None else StopReason(int(state.reason))
