"""Blocks: series on all subdomains of a grid solved for at once, with more modes until they converge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.learning.combinators import Strategy
from cpikan.learning.methods.gauss_newton import backtracked
from cpikan.learning.methods.method import State
from cpikan.learning.objective import make_objective
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.dissection import solve_dissected
from cpikan.learning.strategies.patchwork import Patchwork, can_patch
from cpikan.learning.strategies.slab_system import SlabSystem
from cpikan.learning.strategies.slabs import unit_of
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.problem import Problem
from cpikan.streaming.threads import single_threaded

_MODES = {1: (10, 16, 24, 32), 2: (8, 11, 15, 20, 26), 3: (5, 7, 9, 11)}  # per axis, level by level
_MOST = 150_000  # coefficients
_DAMPING = {True: 1e-15, False: 1e-13}  # of series that meet, and of those under windows, which say some things twice
_STEPS, _HALVINGS = 25, 10
_FLAT = 1e-6  # a step that lowers the cost by less than this share is the last
_POINTS = Points(4000, 400)


@dataclass(frozen=True)
class Blocks(Strategy):
    """Solve a problem by least squares for the series of all subdomains at once, a nonlinear one by Gauss-Newton.

    Levels of more modes begin from zero where the problem is linear and else from the one before; the best by the held-out
    residual stays in the run. Raises InputError for what residuals at single points do not pose.
    """

    cut: Subdomains
    name: str = "blocks"

    def init(self, run: Runner) -> State:
        """Begin with the fewest modes."""
        if not can_patch(run.problem):
            raise InputError(
                f"{run.problem.name} cannot be solved for on subdomains at once: it has an energy, an integral or unknown "
                "coefficients; give a recipe that trains networks, as trained"
            )
        return {"done": 0, "took": 0.0, "reason": int(StopReason.RUNNING)}

    def step(self, run: Runner, state: State) -> State:
        """Solve with the modes of a level."""
        begun = run.left_s
        modes = self._levels(run)[state["done"]]
        with single_threaded():
            sound = self._solved(run, modes)
        reason = StopReason.TARGET if run.converged else StopReason.RUNNING if sound else StopReason.STALLED
        return {"done": state["done"] + 1, "took": begun - run.left_s, "reason": int(reason)}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop at the goal, after the last level, or where one more would not fit into the time."""
        if state["reason"] != StopReason.RUNNING:
            return StopReason(state["reason"])
        levels, done = self._levels(run), state["done"]
        if done >= len(levels):
            return StopReason.COST
        if not done:
            return StopReason.RUNNING
        growth = (math.prod(levels[done]) / math.prod(levels[done - 1])) ** 2
        return StopReason.NEXT_LEVEL if growth * state["took"] > run.left_s else StopReason.RUNNING

    def _levels(self, run: Runner) -> list[tuple[int, ...]]:
        """List the modes per axis of every level."""
        d = run.problem.dimension
        if self.cut.modes is not None:
            return [(self.cut.modes,) * d]
        boxes = sum(len(one) for one in self.cut.partitions(run.problem))
        levels = [(modes,) * d for modes in _MODES.get(d, (4, 5, 6))]
        return [m for n, m in enumerate(levels) if n == 0 or boxes * run.problem.outputs * math.prod(m) <= _MOST]

    def _solved(self, run: Runner, modes: tuple[int, ...]) -> bool:
        """Solve for the series of a level, and offer their field; tells whether they are finite."""
        problem = run.problem
        patches = Patchwork(problem, self.cut, modes, self._unit(run))
        linear, solve = (
            is_linear_problem(problem),
            partial(solve_dissected, places=patches.places, damping=_DAMPING[self.cut.sharp]),
        )
        if not linear and run.placed:
            patches.guess(run.iterate.field)
        elif not linear:
            _minimised(SlabSystem(patches.series, patches.unit, patches.lift(), solve), False)
        system = SlabSystem(patches.series, patches.unit, patches.sets(), solve)
        steps, cost = _minimised(system, linear)
        run.count(steps)
        if not math.isfinite(cost):
            return False
        run.offer(patches.field(), _POINTS)
        run.figures = {"modes": list(modes), "collocation_points": patches.points}
        run.report_progress(modes=modes[0])
        return True

    def _unit(self, run: Runner) -> Tensor:
        """Count every output in the size that it has in the run; 1 before there is one."""
        if not run.placed:
            return torch.ones(run.problem.outputs, dtype=torch.float64)
        at = run.iterate.objective.sets["equation"].points
        with torch.no_grad():
            values = run.iterate.field(at)
        return unit_of(values.abs().amax(dim=0))


def is_linear_problem(problem: Problem) -> bool:
    """Tell whether equation and conditions are linear in the solution, up to a constant."""
    return make_objective(problem, Points(32, 16).init(problem)[0]).affine(problem.outputs)


def _minimised(system: SlabSystem, linear: bool) -> tuple[int, float]:
    """Take Gauss-Newton steps until they do not help; a linear problem takes one, and one that repairs rounding."""
    cost = math.inf
    for taken in range(2 if linear else _STEPS):
        before, step = system.step()
        if not (math.isfinite(before) and bool(torch.isfinite(step).all())):
            return taken, math.inf
        reached = backtracked(system, step, before, 1 if linear else _HALVINGS)
        cost = before if reached is None else reached
        if reached is None or reached > (1 - _FLAT) * before:
            return taken + 1, cost
    return taken + 1, cost
