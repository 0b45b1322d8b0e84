"""Pieces: a steady problem on intervals of one axis, halved where the solution is sharp, with knots where coefficients jump."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.learning.combinators import Strategy
from cpikan.learning.methods.method import State
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.slab import Place, Slab
from cpikan.learning.strategies.slabs import first_knots, joined_field, lifted, unit_of
from cpikan.learning.strategies.steady import refined
from cpikan.learning.strategies.viscosity import from_viscous
from cpikan.learning.unknowns import outputs_of
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box
from cpikan.streaming.threads import single_threaded

_INTERVALS = 4  # to begin with
_CLOSE = 1e-2  # relative residual of a field that is there already, to begin from it
_POINTS = Points(3000, 400)
_LEVELS = {1: ((1e-5, 10), (1e-8, 14), (1e-11, 20)), 2: ((1e-3, 8), (1e-5, 10), (1e-7, 12), (1e-9, 14))}


@dataclass(frozen=True)
class Pieces(Strategy):
    """Solve by Gauss-Newton on all intervals at once, halve those where the series do not converge, and again.

    Intervals lie along the axis with breaks, or else the first; along a second axis there are more modes where they are
    needed. Levels of falling tolerance (and more modes) begin from the intervals before; the best by the held-out residual
    stays in the run. Where the first does not meet a nonlinear problem it is reached from a more viscous one. Raises
    InputError for a region that is no box of one or two axes.
    """

    name: str = "pieces"

    def init(self, run: Runner) -> State:
        """Begin with the coarsest level."""
        if not can_piece(run.problem):
            raise InputError(f"{run.problem.name} cannot be solved in pieces: give a box of one or two axes, no energy")
        return {"detour": False, "done": 0, "took": 0.0, "knots": None, "modes": [], "reason": int(StopReason.RUNNING)}

    def step(self, run: Runner, state: State) -> State:
        """Refine until the series converge to the tolerance of a level."""
        begun, detour = run.left_s, state["detour"]
        tolerance, modes = _LEVELS[run.problem.dimension][state["done"]]
        with single_threaded():
            slab, sound, met = refined(run, self._slab(run, state, modes, tolerance), tolerance)
            if sound or not run.placed:
                _offer(run, slab, detour)
            smooth = None if met or state["done"] or not _nonlinear(run) else from_viscous(run, slab.place, tolerance)
            if smooth is not None:
                slab, sound, detour = smooth.slab, True, True
                _offer(run, slab, detour)
        reason = StopReason.TARGET if run.converged else StopReason.RUNNING if sound else StopReason.STALLED
        state = {**state, "knots": slab.place.knots, "modes": list(slab.modes), "done": state["done"] + 1}
        return {**state, "detour": detour, "took": begun - run.left_s, "reason": int(reason)}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop at the goal, after the last level, or where one more would not fit into the time."""
        if state["reason"] != StopReason.RUNNING:
            return StopReason(state["reason"])
        if state["done"] >= len(_LEVELS[run.problem.dimension]):
            return StopReason.COST
        late = state["done"] and 3 * state["took"] > run.left_s
        return StopReason.NEXT_LEVEL if late else StopReason.RUNNING

    def _slab(self, run: Runner, state: State, modes: int, tolerance: float) -> Slab:
        """Place a level on the intervals that the one before ended with, beginning from its solution."""
        problem, region = run.problem, run.problem.region
        assert isinstance(region, Box)
        chain = next((axis for axis, _ in region.inner.values()), 0)
        knots = state["knots"]
        if knots is None:
            fixed = [place for _, place in region.inner.values()]
            knots = first_knots(region.lower[chain], region.upper[chain], fixed, _INTERVALS)
        least = state["modes"] or [0] * problem.dimension
        place = Place(problem, None, chain, knots, 0.0, 0.0, tuple(max(modes, m) for m in least))
        known = run.placed and (state["knots"] is not None or run.iterate.relative() < _CLOSE)
        return _onward(run, place) if known else lifted(place, tolerance)


def can_piece(problem: Problem) -> bool:
    """Tell whether a problem is posed on a box of one or two axes, by residuals that each belong to one point."""
    coupled = any(condition.mix is not None for condition in problem.conditions)
    return isinstance(problem.region, Box) and problem.dimension <= 2 and problem.energy is None and not coupled


def _onward(run: Runner, place: Place) -> Slab:
    """Begin from the field of the run and its unknowns."""
    iterate = run.iterate

    def known(x: Tensor) -> Tensor:
        return iterate.field.jet(x, "none").value  # type: ignore[operator]

    with torch.no_grad():
        size = known(iterate.objective.sets["equation"].points).abs().amax(dim=0)
    slab = Slab(place, unit_of(size))
    slab.guess(known)
    return slab


def _offer(run: Runner, slab: Slab, detour: bool) -> None:
    """Give the field of a slab to the run, and its unknowns."""
    field, count = joined_field([slab]), run.problem.outputs
    unknowns = field.parts.coefficients.detach()[:, 0, count:].mean(dim=0) if run.problem.unknowns else None
    run.offer(field if unknowns is None else _without(field, count), _POINTS, unknowns, detour=detour)


def _nonlinear(run: Runner) -> bool:
    """Tell whether the field of a run is no least-squares solution that one step finds, and no data leave a misfit."""
    measured = any(condition.at is not None for condition in run.problem.conditions)
    return not measured and not run.iterate.objective.affine(outputs_of(run.iterate.field))


def _without(field: PiecewiseChebyshev, outputs: int) -> PiecewiseChebyshev:
    """Leave out the outputs behind the first: those of unknowns."""
    parts = ProductChebyshev(
        field.parts.modes,
        (field.parts.scaling.lower, field.parts.scaling.upper),
        outputs=outputs,
        networks=field.parts.networks,
    )
    parts.set_output_coefficients(field.parts.coefficients.detach()[..., :outputs])
    return PiecewiseChebyshev(parts)
