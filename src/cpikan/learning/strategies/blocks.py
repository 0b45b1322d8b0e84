"""Blocks: series on all subdomains of a grid solved for at once, with more modes until they converge."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.combinators import Strategy
from cpikan.learning.iterate import placed
from cpikan.learning.methods.gauss_newton import backtracked
from cpikan.learning.methods.method import State
from cpikan.learning.objective import make_objective
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.coarse_space import CoarseSpace
from cpikan.learning.strategies.interface_system import SchwarzSolve
from cpikan.learning.strategies.patchwork import Patchwork, can_patch
from cpikan.learning.strategies.shared_dissection import solve_shared
from cpikan.learning.strategies.slab_system import SlabSystem
from cpikan.learning.strategies.slabs import unit_of
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.problem import Problem
from cpikan.streaming.threads import single_threaded

_MODES = {1: (10, 16, 24, 32), 2: (8, 11, 15, 20, 26), 3: (5, 7, 9, 11)}  # per axis, level by level
_REFINED = {1: 16, 2: 10, 3: 6}  # the same where subdomains are halved
_WORST = 1e-2  # of the roughest interval: what is smoother may come of it, and waits
_MOST = 150_000  # coefficients
_DAMPING = {True: 1e-15, False: 1e-13}  # of series that meet, and of those under windows, which say some things twice
_SMALL = 10_000  # coefficients that always fit: their times say little about longer ones
_GROWTH = {True: 1.7, False: 2.5}  # power of the coefficients of a subdomain that a level takes time by
_STEPS, _HALVINGS = 25, 10
_FLAT = 1e-6  # a step that lowers the cost by less than this share is the last
_POINTS = Points(4000, 400)


@dataclass(frozen=True)
class Blocks(Strategy):
    """Solve a problem by least squares for the series of all subdomains at once, a nonlinear one by Gauss-Newton.

    Levels of more modes, or of halved subdomains, begin from zero where the problem is linear and else from the one before.
    Of more modes the best by the held-out residual stays in the run, of halved subdomains the last.
    Raises InputError for what residuals at single points do not pose.
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
        return {"done": 0, "took": 0.0, "knots": None, "growth": 1.0, "reason": int(StopReason.RUNNING)}

    def step(self, run: Runner, state: State) -> State:
        """Solve with the modes of a level, or on the subdomains of a refinement."""
        begun, done = run.left_s, state["done"]
        cut = self.cut if state["knots"] is None else replace(self.cut, counts=(), knots=state["knots"])
        modes = self._levels(run)[0 if cut.refine else done]
        with single_threaded():
            patches = self._solved(run, cut, modes)
            finer = _finer(patches, run.budget.rtol) if patches is not None and cut.refine else None
        reason = StopReason.STALLED if patches is None else StopReason.TARGET if run.converged else StopReason.RUNNING
        growth = 1.0
        if cut.refine and reason is StopReason.RUNNING:
            if finer is None:
                reason = StopReason.COST
            else:
                growth = (_count(finer) / len(cut.partition(run.problem))) ** _GROWTH[True]
        state = {**state, "done": done + 1, "knots": finer, "growth": growth}
        return {**state, "took": begun - run.left_s, "reason": int(reason)}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop at the goal, after the last level, or where one more would not fit into the time."""
        if state["reason"] != StopReason.RUNNING:
            return StopReason(state["reason"])
        levels, done = self._levels(run), state["done"]
        if not done:
            return StopReason.RUNNING
        if self.cut.refine:
            size, growth = _count(state["knots"]) * math.prod(levels[0]), state["growth"]
            if size * run.problem.outputs > _MOST:
                return StopReason.BUDGET
        elif done >= len(levels):
            return StopReason.COST
        else:
            size = sum(len(one) for one in self.cut.partitions(run.problem)) * math.prod(levels[done])
            growth = (math.prod(levels[done]) / math.prod(levels[done - 1])) ** _GROWTH[self.cut.sharp]
        fits = size * run.problem.outputs < _SMALL or growth * state["took"] <= run.left_s
        return StopReason.RUNNING if fits else StopReason.NEXT_LEVEL

    def _levels(self, run: Runner) -> list[tuple[int, ...]]:
        """List the modes per axis of every level."""
        d = run.problem.dimension
        if self.cut.modes is not None:
            return [(self.cut.modes,) * d]
        if self.cut.refine:
            return [(_REFINED.get(d, 5),) * d]
        boxes = sum(len(one) for one in self.cut.partitions(run.problem))
        levels = [(modes,) * d for modes in _MODES.get(d, (4, 5, 6))]
        return [m for n, m in enumerate(levels) if n == 0 or boxes * run.problem.outputs * math.prod(m) <= _MOST]

    def _solved(self, run: Runner, cut: Subdomains, modes: tuple[int, ...]) -> Patchwork | None:
        """Solve for the series of a level, and offer their field; None where they are not finite."""
        problem = run.problem
        patches = Patchwork(problem, cut, modes, self._unit(run), run.ranks)
        steered = None
        if cut.schwarz is not None:
            space = CoarseSpace(patches.partitions[-1], modes, problem.outputs)
            steered = SchwarzSolve(patches.places, _DAMPING[cut.sharp], space, cut.schwarz)
        steps, cost = solve_series(patches, run.iterate.field if run.placed else None, steered)
        run.count(steps)
        if not math.isfinite(cost):
            return None
        if cut.refine:  # where data jump, finer is better though what is missed there grows
            run.iterate = placed(problem, patches.field(), _POINTS, MEAN_SQUARES, run.ranks)[0]
            run.note()
        else:
            run.offer(patches.field(), _POINTS)
        run.figures = {"modes": list(modes), "boxes": len(patches.places), "equation_points": patches.points}
        if steered is not None:
            run.figures["schwarz_iterations"] = steered.iterations
        run.report_progress(modes=modes[0], boxes=len(patches.places))
        return patches

    def _unit(self, run: Runner) -> Tensor:
        """Count every output in the size that it has in the run; 1 before there is one."""
        if not run.placed:
            return torch.ones(run.problem.outputs, dtype=torch.float64)
        at = run.iterate.objective.sets["equation"].points
        with torch.no_grad():
            values = run.iterate.field(at)
        return unit_of(values.abs().amax(dim=0))


def solve_series(
    patches: Patchwork, start: Callable[[Tensor], Tensor] | None = None, steered: SchwarzSolve | None = None
) -> tuple[int, float]:
    """Solve for the coefficients of all series, of a nonlinear problem from ``start`` or from what its conditions say.

    Directly, or ``steered`` by a Schwarz method. Gives the number of steps and the cost; all processes have all coefficients
    then.
    """
    linear, damping = is_linear_problem(patches.problem), _DAMPING[patches.cut.sharp]
    solve = steered or partial(solve_shared, places=patches.places, damping=damping, share=patches.share)
    if not linear and start is not None:
        patches.guess(start)
    elif not linear:
        _minimised(SlabSystem(patches.series, patches.unit, patches.lift(), solve, patches.share), False)
    found = _minimised(SlabSystem(patches.series, patches.unit, patches.sets(), solve, patches.share), linear)
    patches.series.set_output_coefficients(patches.share.whole(patches.series.coefficients.detach()))
    return found


def _finer(patches: Patchwork, tolerance: float) -> list[list[float]] | None:
    """Halve the intervals of every axis where series have not converged; None where all have."""
    rough = patches.roughness()
    least = max(tolerance, _WORST * max(float(score.max()) for score in rough))
    knots, halved = [], False
    for axis, score in zip(patches.partitions[-1].axes, rough, strict=True):
        places = [axis.lower, *axis.cuts, axis.upper]
        halfway = {n: 0.5 * (a + b) for n, (a, b) in enumerate(itertools.pairwise(places)) if float(score[n]) > least}
        halved = halved or bool(halfway)
        knots.append(sorted([*places, *halfway.values()]))
    return knots if halved else None


def _count(knots: list[list[float]]) -> int:
    return math.prod(len(places) - 1 for places in knots)


def is_linear_problem(problem: Problem) -> bool:
    """Tell whether equation and conditions are linear in the solution, up to a constant."""
    return make_objective(problem, Points(32, 16).init(problem)[0]).affine(problem.outputs)


def _minimised(system: SlabSystem, linear: bool) -> tuple[int, float]:
    """Take Gauss-Newton steps until they do not help, in a linear problem one; gives their number, and the cost."""
    cost = math.inf
    for taken in range(1 if linear else _STEPS):
        before, step = system.step()
        if not (math.isfinite(before) and bool(torch.isfinite(step).all())):
            return taken, math.inf
        if linear:
            cost = system.expected(step)
            system.put(system.position() + step)
            break
        reached = backtracked(system, step, before, _HALVINGS)
        cost = before if reached is None else reached
        if reached is None or reached > (1 - _FLAT) * before:
            break
    return taken + 1, cost
