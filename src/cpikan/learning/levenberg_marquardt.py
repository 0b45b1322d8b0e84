"""Levenberg-Marquardt for batches: thousands of small least-squares problems at once, or one large one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.learning.least_squares import LeastSquares
from cpikan.learning.normal_equations import Equations
from cpikan.learning.stop_reason import StopReason as StopReason

_ACCEPT = 1e-4  # least gain ratio of a step that is taken (MINPACK)
_LARGEST_DAMPING = 1e16  # steps are then 1e-16 of the gradient's: below rounding
_SHRINK = 0.8  # the batch is rebuilt when this share still runs: copies then cost at most five batches altogether


@dataclass(frozen=True)
class Settings:
    """Tolerances are relative; None stands for 16 units in the last place of the precision.

    ``damping`` is the first one, relative to the metric; ``metric`` is "running-max" (the largest diagonal of J'J so
    far, invariant under scaling of the parameters; More 1978) or "identity". ``target`` is a cost that is good enough, one
    or one per problem (N,), as a chi-square test gives.
    """

    iterations: int = 100
    gradient: float | None = None
    step: float | None = None
    cost: float | None = None
    damping: float = 1e-3
    metric: Literal["running-max", "identity"] = "running-max"
    target: float | Tensor = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 0 or not self.damping > 0:
            raise InputError(
                f"{self.iterations} iterations from damping {self.damping}: give at least 0, and more than 0"
            )
        if self.metric not in ("running-max", "identity"):
            raise InputError(f"metric {self.metric!r}: give running-max or identity")


@dataclass(frozen=True)
class State:
    """n problems on their way; every tensor begins with the problems, ``problem`` is their place in the start."""

    problem: Tensor
    parameters: Tensor
    equations: Equations
    metric: Tensor
    damping: Tensor
    growth: Tensor
    iterations: Tensor
    reason: Tensor

    def take(self, index: Tensor) -> State:
        """Select the problems ``index``."""
        parts = {name: part[index] for name, part in vars(self).items() if isinstance(part, Tensor)}
        return State(equations=self.equations.take(index), **parts)


@dataclass(frozen=True)
class Solution:
    """Parameters (N, P), cost (N,), iterations (N,) and ``StopReason`` values (N,); without N for a single start."""

    parameters: Tensor
    cost: Tensor
    iterations: Tensor
    reason: Tensor

    @property
    def converged(self) -> Tensor:
        """Tell which problems met a tolerance or the target."""
        return (self.reason >= StopReason.GRADIENT) & (self.reason <= StopReason.TARGET)

    def counts(self) -> dict[str, int]:
        """Count the problems that stopped for each reason."""
        values, numbers = torch.unique(self.reason, return_counts=True)
        return {StopReason(int(v)).name.lower(): int(n) for v, n in zip(values, numbers, strict=True)}


@torch.no_grad()
def minimise(problem: LeastSquares, start: Tensor, settings: Settings = Settings()) -> Solution:
    """Minimise n problems from ``start`` (n, P), or one from (P,); float32 or float64, on the device of ``start``.

    Every problem has its own damping and its own end, as if it ran alone; one that is done leaves the batch. Nothing is
    raised for a problem that fails: its reason says so, and its parameters are the best found.
    """
    if start.ndim not in (1, 2) or not start.is_floating_point():
        raise InputError(f"start of shape {tuple(start.shape)} and {start.dtype}: give (P,) or (N, P) floats")
    single = start.ndim == 1
    state = begin(problem, start.detach().clone().reshape(-1, start.shape[-1]), settings)
    result = Solution(
        state.parameters.clone(), state.equations.cost.clone(), state.iterations.clone(), state.reason.clone()
    )
    while True:
        running = torch.nonzero(state.reason == StopReason.RUNNING).flatten()
        if len(running) < _SHRINK * len(state.reason) or not len(running):
            _store(result, state)
            if not len(running):
                break
            state, problem = state.take(running), problem.take(running)
        state = advance(problem, state, settings)
    parts = (result.parameters, result.cost, result.iterations, result.reason)
    return Solution(*(part[0] for part in parts)) if single else result


def begin(problem: LeastSquares, parameters: Tensor, settings: Settings) -> State:
    """Linearise at the start and set the first damping."""
    n = len(parameters)
    found = problem.linearise(parameters)
    count = torch.zeros(n, dtype=torch.long, device=parameters.device)
    reason = torch.where(_finite(found), int(StopReason.RUNNING), int(StopReason.BAD_START))
    metric = _metric(found, None, settings)
    damping = torch.full((n,), settings.damping, dtype=parameters.dtype, device=parameters.device)
    if settings.metric == "identity":
        damping = damping * found.diagonal.amax(dim=-1).clamp_min(torch.finfo(parameters.dtype).tiny)
    state = State(
        torch.arange(n, device=parameters.device),
        parameters,
        found,
        metric,
        damping,
        torch.full_like(damping, 2),
        count,
        reason,
    )
    return _stop_before_step(state, settings)


def advance(problem: LeastSquares, state: State, settings: Settings) -> State:
    """Iterate all running problems once: step, gain ratio, new damping; the others stay as they are.

    The step solves (J'J + m D) d = -J'r, and its gain ratio is (cost - new cost) / (-d'(J'r) + m d'Dd) * 2. After a
    good step m falls to max(1/3, 1 - (2 gain - 1)^3) of itself; after a bad one it grows by 2, 4, 8, ... (Nielsen 1999).
    A step to where residuals or Jacobian are not finite is a bad one, so the last finite parameters are kept.
    """
    running = state.reason == StopReason.RUNNING
    found = state.equations
    step, exists = found.step(state.damping, state.metric)
    step = torch.where((running & exists)[:, None], step, 0.0)
    predicted = 0.5 * ((state.damping[:, None] * state.metric * step - found.gradient) * step).sum(dim=-1)
    trial = state.parameters + step
    cost = problem.cost(trial)
    gain = (found.cost - cost) / predicted
    good = running & exists & (gain > _ACCEPT) & (predicted > 0) & torch.isfinite(cost)
    state, taken = _move(problem, state, trial, good, settings)
    cost = torch.where(good & ~taken, torch.nan, cost)  # the Jacobian is not finite there
    eased = state.damping * (1 - (2 * gain - 1) ** 3).clamp(min=1 / 3)
    state = replace(
        state,
        damping=torch.where(taken, eased, torch.where(running, state.damping * state.growth, state.damping)),
        growth=torch.where(taken, 2.0, torch.where(running, 2 * state.growth, state.growth)),
        iterations=state.iterations + running,
    )
    tried = _Trial(step, exists, predicted, cost, found.cost, taken)
    return _stop_before_step(_stop_after_step(state, tried, settings), settings)


@dataclass(frozen=True)
class _Trial:
    """What became of a step (n, P), and (n,) each: whether the system had one, the fall it promised, the costs at its end
    and before it, and whether it was taken."""

    step: Tensor
    exists: Tensor
    predicted: Tensor
    cost: Tensor
    before: Tensor
    taken: Tensor


def _move(problem: LeastSquares, state: State, trial: Tensor, good: Tensor, settings: Settings) -> tuple[State, Tensor]:
    """Take the good steps whose linearisation is finite; linearise all problems, or the good ones when they are few."""
    index = torch.nonzero(good).flatten()
    if not len(index):
        return state, good
    if 2 * len(index) > len(good):
        new = problem.linearise(torch.where(good[:, None], trial, state.parameters))
        keep = torch.nonzero(good & _finite(new)).flatten()
        new = new.take(keep) if len(keep) < len(good) else new
    else:
        new = problem.take(index).linearise(trial[index])
        finite = _finite(new)
        keep, new = index[finite], new.take(torch.nonzero(finite).flatten())
    taken = torch.zeros_like(good).index_fill(0, keep, True)
    found = new if len(keep) == len(good) else state.equations.replace(keep, new)
    parameters = torch.where(taken[:, None], trial, state.parameters)
    return replace(state, parameters=parameters, equations=found, metric=_metric(found, state.metric, settings)), taken


def _stop_before_step(state: State, settings: Settings) -> State:
    """Mark stops by target, by the gradient |J'r|_j <= tolerance |J_j| |r| for all j (MINPACK's cosines), by budget."""
    target = settings.target[state.problem] if isinstance(settings.target, Tensor) else settings.target
    state = _mark(state, state.equations.cost <= target, StopReason.TARGET)
    flat = _is_flat(state.equations, _tolerance(settings.gradient, state.parameters))
    return _mark(_mark(state, flat, StopReason.GRADIENT), state.iterations >= settings.iterations, StopReason.BUDGET)


def _is_flat(found: Equations, tolerance: float) -> Tensor:
    """Tell whether the residuals are orthogonal to all columns of the Jacobian to within a cosine."""
    length = found.diagonal.sqrt() * (2 * found.cost).sqrt()[:, None]
    return (found.gradient.abs() <= tolerance * length).all(dim=-1)


def _stop_after_step(state: State, trial: _Trial, settings: Settings) -> State:
    """Mark stops by cost and step, then where the damping has nowhere to go."""
    scale = state.equations.diagonal.amax(dim=-1) if settings.metric == "identity" else torch.ones_like(state.damping)
    finite, free = torch.isfinite(trial.cost), state.damping <= scale
    limit = _tolerance(settings.cost, state.parameters) * trial.before
    # an almost undamped step that promises nothing ends it, even where rounding makes the cost rise by more
    small = (trial.predicted <= limit) & trial.exists & (((trial.before - trial.cost).abs() <= limit) | free)
    state = _mark(state, small & finite, StopReason.COST)
    root = state.metric.sqrt()
    length, size = (root * trial.step).norm(dim=-1), (root * state.parameters).norm(dim=-1)
    tiny = (length <= _tolerance(settings.step, state.parameters) * size) & (length > 0)
    state = _mark(state, tiny & finite & free, StopReason.STEP)
    stuck = ~trial.taken & (tiny | (state.damping > _LARGEST_DAMPING * scale))
    state = _mark(state, stuck & ~finite, StopReason.DIVERGED)
    # a cosine of sqrt(eps) changes the cost by eps of itself: below its rounding, it cannot be seen to fall any more
    blind = _is_flat(state.equations, 16 * torch.finfo(state.parameters.dtype).eps ** 0.5)
    return _mark(_mark(state, stuck & blind, StopReason.COST), stuck, StopReason.STALLED)


def _mark(state: State, where: Tensor, reason: StopReason) -> State:
    """Give the problems that still run a reason to stop."""
    running = state.reason == StopReason.RUNNING
    return replace(state, reason=torch.where(running & where, int(reason), state.reason))


def _metric(found: Equations, before: Tensor | None, settings: Settings) -> Tensor:
    """Compute the metric D (n, P); parameters without influence get the largest, so that the system stays definite."""
    if settings.metric == "identity":
        return torch.ones_like(found.gradient)
    diagonal = found.diagonal
    largest = diagonal.amax(dim=-1, keepdim=True)
    diagonal = torch.where(diagonal > 0, diagonal, torch.where(largest > 0, largest, 1.0))
    return diagonal if before is None else torch.maximum(diagonal, before)


def _finite(found: Equations) -> Tensor:
    return torch.isfinite(found.cost) & torch.isfinite(found.gradient).all(-1) & torch.isfinite(found.diagonal).all(-1)


def _tolerance(given: float | None, like: Tensor) -> float:
    return 16 * torch.finfo(like.dtype).eps if given is None else given


def _store(result: Solution, state: State) -> None:
    """Write the results of the problems of ``state`` to their places in the solution."""
    result.parameters[state.problem] = state.parameters
    result.cost[state.problem] = state.equations.cost
    result.iterations[state.problem] = state.iterations
    result.reason[state.problem] = state.reason
