"""Levenberg: all parameters of a field by Levenberg-Marquardt, each step through a QR factor instead of J'J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.checkpoint import or_infinite
from cpikan.learning.least_squares import LeastSquares
from cpikan.learning.levenberg_marquardt import Settings, State, advance, begin
from cpikan.learning.normal_equations import Equations, _Rows
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason

_KEPT = ("metric", "damping", "growth", "iterations", "reason")  # of a state; the rest follows from the parameters


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


@dataclass(frozen=True)
class DualQREquations(_Rows):
    """J (1, R, P) and r (1, R) themselves, for fewer rows than parameters: a factor of size R instead of P.

    The damped step is S times the first P entries of the shortest z with [J S, sqrt(m)] z = -r, S = D^-1/2, found by QR of
    the transposed; in exact arithmetic -D^-1 J' (J D^-1 J' + m)^-1 r, the Woodbury form, without squaring the condition.
    """

    cost: Tensor
    gradient: Tensor
    diagonal: Tensor
    jacobian: Tensor
    residuals: Tensor

    @classmethod
    def of(cls, residuals: Tensor, jacobian: Tensor) -> DualQREquations:
        """From r (R,) and J (R, P) of one problem."""
        cost, diagonal = 0.5 * residuals.square().sum(), jacobian.square().sum(dim=0)
        parts = (cost, jacobian.mT @ residuals, diagonal, jacobian, residuals)
        return cls(*(part[None] for part in parts))

    def step(self, damping: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """The damped step (1, P), and whether it is finite (1,)."""
        scale, jacobian, residuals = metric[0].rsqrt(), self.jacobian[0], self.residuals[0]
        rows, width = jacobian.shape
        below = damping[0].sqrt() * torch.eye(rows, dtype=scale.dtype, device=scale.device)
        stacked = torch.cat([(jacobian * scale).mT, below])
        if not bool(torch.isfinite(stacked).all()):
            return torch.zeros_like(metric), torch.zeros(1, dtype=torch.bool)
        turn, factor = torch.linalg.qr(stacked)
        solved = torch.linalg.solve_triangular(factor.mT, -residuals[:, None], upper=False)
        step = (scale * (turn[:width] @ solved).squeeze(-1))[None]
        return step, torch.isfinite(step).all(dim=-1)


def factored(residuals: Tensor, jacobian: Tensor) -> QREquations | DualQREquations:
    """The smaller of both forms."""
    rows, width = jacobian.shape
    return DualQREquations.of(residuals, jacobian) if rows < width else QREquations.of(residuals, jacobian)


class FieldRows:
    """The rows of a run as a least-squares problem of one set of parameters (1, P)."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def cost(self, parameters: Tensor) -> Tensor:
        """Half the sum of squares, (1,)."""
        set_parameters(self._run.field, parameters[0])
        with torch.no_grad():
            return 0.5 * self._run.rows.residuals(self._run.field).square().sum()[None]

    def linearise(self, parameters: Tensor) -> Equations:
        """Residuals and Jacobian, factored."""
        set_parameters(self._run.field, parameters[0])
        return factored(*self._run.rows.linearise(self._run.field))

    def take(self, index: Tensor) -> FieldRows:
        """There is but one problem."""
        return self

    def put(self, parameters: Tensor) -> None:
        """Put parameters (1, P) into the field."""
        set_parameters(self._run.field, parameters[0])


@dataclass(frozen=True)
class Levenberg:
    """Levenberg-Marquardt on all parameters; ends early when held-out residuals rise ``patience`` times as steps go on."""

    iterations: int = 400
    damping: float = 1e-3
    patience: int = 30
    name: str = "levenberg-marquardt"

    def run(self, run: Run) -> StopReason:
        """Iterate; the state that was best at held-out points stays."""
        return descend(run, FieldRows(run), parameter_vector(run.field), self, run.kept())


class SingleProblem(LeastSquares, Protocol):
    """A least-squares problem of one set of parameters (1, P), which may be some of the field's."""

    def put(self, parameters: Tensor) -> None:
        """Put parameters (1, P) into the field."""
        ...


def descend(run: Run, problem: SingleProblem, start: Tensor, stage: Levenberg, kept: dict[str, Any]) -> StopReason:
    """Levenberg-Marquardt from ``start`` (P,), with the state ``kept`` where it was interrupted."""
    settings = Settings(iterations=stage.iterations, damping=stage.damping)
    ended = None
    state = _resumed(problem, start[None], kept) if kept else begin(problem, start[None], settings)
    best, since = (or_infinite(kept["best"]), kept["since"]) if kept else (run.best_cost, 0)

    def keep() -> dict[str, Any]:
        parts = {name: getattr(state, name) for name in _KEPT}
        return {**parts, "best": best, "since": since}

    while int(state.reason) == StopReason.RUNNING and ended is None:
        before = state.parameters
        state = advance(problem, state, settings)
        problem.put(state.parameters)
        taken = not torch.equal(before, state.parameters)
        ended = run.note(float(state.equations.cost), check=taken)
        if taken:
            since = 0 if run.best_cost < best else since + 1
            best = run.best_cost
            if since >= stage.patience and ended is None:
                ended = StopReason.HELD_OUT
        run.keep(keep)
    return ended if ended is not None else StopReason(int(state.reason))


def _resumed(problem: SingleProblem, start: Tensor, kept: dict[str, Any]) -> State:
    return State(torch.arange(1), start, problem.linearise(start), **{name: kept[name] for name in _KEPT})
