"""solve: a problem, a field and a recipe to a solution that says how good it is and why it stopped."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import NUMBER, WHOLE, InputError, check_type
from cpikan.fields.constrained import Ansatz, ConstrainedField
from cpikan.fields.functional import parameter_vector
from cpikan.fields.layered import Start
from cpikan.fields.mapped import MappedCPIKAN
from cpikan.learning.balancers.balancer import Balancer
from cpikan.learning.balancers.kinds import balancer_named
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.combinators import Restarts, Sequential, check_restarts
from cpikan.learning.directions.direction import Direction
from cpikan.learning.directions.kinds import direction_named
from cpikan.learning.iterate import Iterate, placed
from cpikan.learning.losses.kinds import loss_mode_of
from cpikan.learning.losses.loss_mode import LossMode
from cpikan.learning.objective import Objective
from cpikan.learning.recipes import Recipe, recipe_named
from cpikan.learning.runner import Budget, Callback, Runner
from cpikan.learning.samplers.kinds import SAMPLERS, make_sampler
from cpikan.learning.samplers.points import MIN_ROWS_PER_PARAMETER, Points
from cpikan.learning.samplers.sampler import Sampler, check_sampler
from cpikan.learning.solution import Solution
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.trained import trained
from cpikan.learning.transfer import check_start, transferred
from cpikan.learning.trust.assess import assess
from cpikan.learning.unknowns import network_of, outputs_of, unknowns_of
from cpikan.learning.violations import Violation, violations, zero_cost
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box
from cpikan.physics.resonance import near_resonance
from cpikan.streaming.events import SILENT, Events
from cpikan.streaming.run_store import RunStore

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_CHUNK = 4096  # points evaluated at once
SIDES = {1: 2001, 2: 201, 3: 41}  # test points per axis
_MOST = 70_000  # test points in four dimensions and more


@dataclass(frozen=True)
class SolveSettings:
    """What a solve may use, where it looks, and where its state is kept.

    ``seconds`` (by ``clock``: on the wall, or of the processor) and ``steps`` bound it, and it ends where the held-out
    residual is ``rtol`` of that of u = 0. ``points``, a rule, another sampler or the name of one (`SAMPLERS`, which acts
    every ``sampler_every`` steps on the recipe's points), replaces the recipe's; ``events`` hear the seconds used, and
    may cancel. ``checkpoint`` is a folder where the state is kept, every ``checkpoint_s`` seconds and after every stage;
    with ``resume`` a solve goes on from there as if it had not been interrupted (the seconds used before count), or
    begins where nothing is. ``restarts`` replaces the recipe's. ``batch`` interior points are drawn for every step, in
    the stages that take mini-batches. ``balancer`` weighs terms or points instead of the recipe's, and ``direction``
    combines their gradients in the stages that follow one, each by itself or by its name (`BALANCERS`, `DIRECTIONS`).
    ``constraints`` says how conditions are held: "exact" by the form of the solution, where it can (the rest by squares),
    "penalty" by squares, "augmented-lagrangian" and "al-pinn" by multipliers too. ``loss_mode`` says what stands in the cost
    for the equation, by itself or by its name (`LOSS_MODES`). ``start_from`` is a solution, or where one was saved, of this
    or another problem: a copy of its network is the start (`transferred`). With points or any of these six a recipe trains a
    network, whatever it does without.
    ``callback(field, record)`` is called with the field as it is and a record of the history, every ten steps, or for each
    field that a strategy has made as a whole (a window of time, a passage); it ends the solve by returning True.
    """

    seconds: float = 60.0
    points: Sampler | str | None = None
    events: Events = SILENT
    checkpoint: Path | str | None = None
    resume: bool = False
    checkpoint_s: float = 5.0
    restarts: int | None = None
    steps: int | None = None
    rtol: float = 1e-11
    balancer: Balancer | str | None = None
    direction: Direction | str | None = None
    sampler_every: int | None = None
    clock: str = "wall"
    callback: Callback | None = None
    batch: int | None = None
    constraints: str | None = None
    loss_mode: LossMode | str = "strong"
    start_from: Solution | Path | str | None = None

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise InputError("resume without a checkpoint: name its folder")
        if not self.checkpoint_s >= 0:
            raise InputError(f"checkpoints every {self.checkpoint_s} s: give 0 or more")
        check_type("seconds", self.seconds, NUMBER, "a number above 0")
        check_type("clock", self.clock, str, "wall or processor")
        check_restarts(self.restarts or 0)
        assert self.budget  # refuses limits that are none
        if self.callback is not None and not callable(self.callback):
            raise InputError(f"callback {self.callback!r}: give a function of (field, record)")
        if self.points is not None and not isinstance(self.points, str):
            check_sampler(self.points)
        if self.start_from is not None:
            check_start(self.start_from)
        if self.sampler_every is not None and not isinstance(self.points, str):
            raise InputError(f"a sampler every {self.sampler_every} steps: name one of {', '.join(SAMPLERS)}")

    def sampling(self, base: Points) -> SolveSettings:
        """Make the sampler that is named begin with the points ``base``; raises InputError for an unknown name."""
        if not isinstance(self.points, str):
            return self
        return replace(self, points=make_sampler(self.points, base, self.sampler_every), sampler_every=None)

    @property
    def trains(self) -> bool:
        """Tell whether there is something asked for that only the training of a network has."""
        asked = (self.points, self.balancer, self.direction, self.batch, self.constraints, self.start_from)
        return any(part is not None for part in asked) or loss_mode_of(self.loss_mode).trains

    def applied(self, recipe: Recipe, problem: Problem) -> Recipe:
        """Put all that is asked for into a recipe; raises InputError for what does not go together."""
        recipe = loss_mode_of(self.loss_mode).applied(recipe)
        if self.constraints is not None:
            recipe = recipe.holding(self.constraints)
        if self.balancer is not None:
            found = balancer_named(self.balancer, problem) if isinstance(self.balancer, str) else self.balancer
            recipe = replace(recipe, balancer=found)
        if self.direction is not None:
            direction = direction_named(self.direction) if isinstance(self.direction, str) else self.direction
            recipe = recipe.along(direction)
        if self.batch is not None:
            recipe = recipe.batched(self.batch)
        recipe.check()
        return recipe

    def posed(self, problem: Problem, recipe: Recipe, drawn: bool) -> tuple[Problem, Ansatz | None]:
        """Take conditions that are held exactly out of a problem, for a field that is drawn, or given with "exact" asked for.

        Unasked a recipe holds values on boxes: functions of coordinates that have slopes or periods train more slowly. Raises
        InputError where "exact" was asked for and there is nothing to hold.
        """
        asked = self.constraints == "exact"
        if not recipe.exact_values or not (asked or (drawn and isinstance(problem.region, Box))):
            return problem, None
        found = with_exact_conditions(problem, embedded=drawn and asked)
        if found[1] is None and asked:
            raise InputError(
                f"no condition of {problem.name} can be held by the form of the solution: give constraints='penalty' or "
                "'augmented-lagrangian'"
            )
        return found

    @property
    def budget(self) -> Budget:
        """Return the limits on seconds, steps and tolerance."""
        return Budget(self.seconds, self.steps, self.rtol, self.clock)


def solve(
    problem: Problem | str,
    field: nn.Module | None = None,
    recipe: Recipe | str = "default",
    *,
    seed: int = 0,
    settings: SolveSettings = SolveSettings(),
) -> Solution:
    """Find the field that satisfies a problem (or one of the catalogue, by name), the same for the same seed.

    ``field`` is trained in place from where it is; without one the recipe makes its own. Raises InputError for unknown
    names, a field of other axes, outputs or precision than the problem needs or a box that does not hold its region, and
    residuals of a wrong shape or not finite at the start; ResumeError for a checkpoint of another solve. A solve that fails
    raises nothing: the reason says so.
    """
    check_type("problem", problem, (Problem, str), "a Problem, or the name of one; cpikan.problems() lists them")
    check_type("recipe", recipe, (Recipe, str), "the name of a recipe, or a Recipe")
    check_type("settings", settings, SolveSettings, "SolveSettings(...)")
    check_seed(seed)
    problem = problem_named(problem) if isinstance(problem, str) else problem
    recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
    asked, mode, recipe = recipe, loss_mode_of(settings.loss_mode), settings.applied(recipe, problem)
    own = None if settings.trains or field is not None else recipe.own
    drawn = own is None and field is None
    if field is not None and settings.start_from is not None:
        raise InputError("a field and a solution to start from: give one of them, whose network is the start")
    plain, ansatz = settings.posed(problem, recipe, drawn) if own is None else (problem, None)
    posed = mode.pose(problem) if ansatz is None else settings.posed(mode.pose(problem), recipe, drawn)[0]
    point_map = None if ansatz is None else ansatz.point_map
    if own is None:
        field = _start(problem, ansatz, recipe, seed, settings) if field is None else field
        check_field(problem, field)
        settings = settings.sampling(_points(recipe, problem, field, seed))
        mode.check_points(settings.points)
    store = _store(problem, field, recipe, seed, settings)
    mode.check(posed)
    run = Runner(posed, settings.budget, seed, settings.events, store, _callback(settings.callback, ansatz))
    with nullcontext() if store is None else store:
        reason = _run(run, field, recipe, settings)
    seconds, warnings = run.seconds, [*_unused(asked, own is None, settings), *_warnings(problem, run, own is None)]
    iterate = _by_equation(plain, run, recipe) if mode.trains else run.iterate
    found = iterate if ansatz is None else _behind(problem, ansatz, iterate, recipe, seed)
    missed = violations(found.field, found.heldout)
    metrics = _metrics(problem, found, run, missed, seconds)
    fresh = _start(problem, ansatz, recipe, seed, settings) if drawn else None
    if fresh is not None and len(fresh.widths) > 3:
        fresh.restart(Start(seed))
        metrics |= trained(fresh, iterate)
    metrics |= run.figures
    # what a network of mapped coordinates cannot do is not known to the equation that is posed for it
    judged = (plain, iterate) if point_map is None else (problem, found)
    trust, known = assess(*judged, run.levels, missed)
    if known is not None:
        metrics["standard_errors"] = list(known.standard_errors)
        warnings += [known.open] if known.open else []
    before = None if store is None or store.saved is None else store.saved.state["iterations"]
    if run.iterations == before and reason not in (StopReason.TIME, StopReason.NEXT_LEVEL):
        warnings.append(f"the solve in {settings.checkpoint} had been finished: nothing was left to do")
    return Solution(
        problem, network_of(found.field), run.history, reason, metrics, seed, *trust, recipe.name, tuple(warnings)
    )


def _start(problem: Problem, ansatz: Ansatz | None, recipe: Recipe, seed: int, settings: SolveSettings) -> Any:
    """Make the network that a recipe begins with: a fresh one, or that of the solution to start from."""
    if settings.start_from is not None:
        return transferred(settings.start_from, problem, ansatz)
    return recipe.network(problem, seed, None if ansatz is None else ansatz.point_map)


def _callback(callback: Callback | None, ansatz: Ansatz | None) -> Callback | None:
    """Give the callback the field that the user asked for: the network behind its ansatz, where there is one."""
    if callback is None or ansatz is None:
        return callback
    return lambda network, record: callback(ConstrainedField(network, ansatz), record)


def _behind(problem: Problem, ansatz: Ansatz, iterate: Iterate, recipe: Recipe, seed: int) -> Iterate:
    """Put the network of an iterate behind its ansatz, to be judged by the problem as it was given."""
    field = ConstrainedField(network_of(iterate.field), ansatz)
    return placed(problem, field, _points(recipe, problem, field, seed), MEAN_SQUARES)[0]


def _by_equation(problem: Problem, run: Runner, recipe: Recipe) -> Iterate:
    """Judge the field of a run by the equation's own residuals, whatever it was fitted to."""
    network, before = network_of(run.iterate.field), unknowns_of(run.iterate.field)
    found = placed(problem, network, _points(recipe, problem, network, run.seed), MEAN_SQUARES)[0]
    beside = unknowns_of(found.field)
    if beside is not None and before is not None:
        beside.data.copy_(before)
        found.scale = found.zero_cost()
    found.keep_best()
    return found


def _run(run: Runner, field: nn.Module | None, recipe: Recipe, settings: SolveSettings) -> StopReason:
    """Run the recipe from the state that was saved, or from the start: on a field, or with a strategy that finds one."""
    assert not isinstance(settings.points, str)
    resumed = run.resume(field, settings.points, recipe.balancer)
    if field is None:
        assert recipe.own is not None
        return run.run(Sequential((recipe.own,)))
    if not resumed:
        points = settings.points or _points(recipe, run.problem, field, run.seed)
        assert not isinstance(points, str)
        run.place(field, points, recipe.balancer)
    restarts = recipe.restarts if settings.restarts is None else settings.restarts
    return run.run(Restarts(Sequential(recipe.stages), restarts))


def _points(recipe: Recipe, problem: Problem, field: nn.Module, seed: int) -> Points:
    """Choose the recipe's points for a field."""
    return recipe.points(problem, sum(p.numel() for p in field.parameters()), seed)


def _store(
    problem: Problem, field: nn.Module | None, recipe: Recipe, seed: int, settings: SolveSettings
) -> RunStore | None:
    """Open where the state of this solve is kept, with all that must be equal when it is resumed."""
    if settings.checkpoint is None:
        return None
    shape = None
    if field is not None:
        config = getattr(field, "config", lambda: {n: list(p.shape) for n, p in field.named_parameters()})
        shape = {"kind": type(field).__name__, "config": config()}
    conditions = [(c.name, c.on, c.period, c.weight) for c in problem.conditions]
    identity = {
        "problem": problem.name,
        "problem's region, outputs and conditions": described((problem.region, problem.outputs, conditions)),
        "recipe": recipe.name,
        "balancer": None if settings.balancer is None else described(settings.balancer),
        "direction": None if settings.direction is None else described(settings.direction),
        "constraints": settings.constraints,
        "loss mode": described(settings.loss_mode),
        "recipe's settings": described(recipe),
        "seed": seed,
        "points": None if settings.points is None else {k: described(v) for k, v in vars(settings.points).items()},
        "restarts": settings.restarts,
        "field": shape,
    }
    if settings.start_from is not None and field is not None:
        identity["start"] = sha256(parameter_vector(field).numpy().tobytes()).hexdigest()[:12]
    return RunStore(settings.checkpoint, identity, resume=settings.resume, every_s=settings.checkpoint_s)


def described(thing: Any) -> Any:
    """Return a number or text as it is, of anything else a hash of its text without addresses."""
    if isinstance(thing, int | float | str):
        return thing
    return sha256(_ADDRESS.sub("", repr(thing)).encode()).hexdigest()[:12]


def _unused(asked: Recipe, trains: bool, settings: SolveSettings) -> list[str]:
    """List what was asked for and has no effect: a recipe's strategy where one network is trained, new starts where none is."""
    if trains:
        lost = asked.own is not None and asked.name != "default"
        text = (
            f"recipe {asked.name} finds a field of its own: with a field, or a sampler, balancer, direction, batch, "
            "constraints, loss mode or start of yours, one network was trained by its methods instead"
        )
        return [text] if lost else []
    text = f"restarts without effect: recipe {asked.name} finds a field of its own, give a field, or a recipe that trains one"
    return [text] if settings.restarts else []


def _warnings(problem: Problem, run: Runner, given: bool) -> list[str]:
    """List warnings for the user besides the figures."""
    found = []
    objective, field = run.iterate.objective, run.iterate.field
    parameters = sum(p.numel() for p in field.parameters())
    residuals = all(term.kind == "residual" for term in objective.terms)
    rows = len(objective.residuals(field)) if residuals else 0
    if given and residuals and rows < MIN_ROWS_PER_PARAMETER * parameters:
        found.append(f"{rows} residuals for {parameters} parameters: give twice as many, or check held-out figures")
    resonance = near_resonance(problem) if objective.affine(outputs_of(field)) else None
    if resonance is not None:
        found.append(resonance)
    return found


def check_seed(seed: int) -> None:
    """Raise InputError for what is no whole number from 0 on."""
    check_type("seed", seed, WHOLE, "a whole number from 0 on")
    if seed < 0:
        raise InputError(f"seed {seed}: give 0 or more")


def check_field(problem: Problem, field: nn.Module) -> None:
    """Raise InputError for a field that cannot hold a solution of the problem."""
    if not all(hasattr(field, part) for part in ("dimension", "outputs", "jet", "networks")):
        raise InputError(f"field is a {type(field).__name__}: give a field, as ScaledCPIKAN, or ModuleField(module)")
    if field.dimension != problem.dimension or field.outputs != problem.outputs:
        raise InputError(
            f"field with {field.dimension} axes and {field.outputs} outputs for {problem.name}: "
            f"give {problem.dimension} and {problem.outputs}"
        )
    if field.networks is not None:
        raise InputError(f"field holds {field.networks} networks: give a single one")
    dtypes = {p.dtype for p in field.parameters()}
    if dtypes != {torch.float64}:
        raise InputError(f"field is {dtypes.pop()}: equations are solved in float64, convert it with .double()")
    scaling = getattr(field, "scaling", None)
    if scaling is not None and not isinstance(field, MappedCPIKAN):
        low, high = (torch.tensor(v, dtype=torch.float64) for v in (problem.region.lower, problem.region.upper))
        slack = 1e-9 * (high - low)
        if bool((scaling.lower > low + slack).any()) or bool((scaling.upper < high - slack).any()):
            raise InputError(
                f"points of {problem.name} lie outside the field's domain: give domain=({problem.region.lower}, "
                f"{problem.region.upper}) or a larger one"
            )


def test_points(problem: Problem) -> Tensor:
    """Make an even grid over the region, ends included, (n, d)."""
    side = SIDES.get(problem.dimension, max(2, int(_MOST ** (1 / problem.dimension))))
    ticks = np.linspace(0, 1, side)
    unit = np.stack(np.meshgrid(*[ticks] * problem.dimension, indexing="ij"), axis=-1).reshape(-1, problem.dimension)
    return torch.from_numpy(problem.region.inside(unit, clustered=False))


@torch.no_grad()
def evaluate(field: nn.Module, x: Tensor) -> Tensor:
    """Evaluate a field at points (n, d) in chunks, (n, outputs)."""
    return torch.cat([field(part) for part in x.split(_CHUNK)])


def errors(problem: Problem, values: Tensor, x: Tensor) -> tuple[float, float]:
    """Compute the relative L2 and largest absolute error of values (n, outputs) against the reference, worst output."""
    truth = problem.reference_values(x)
    keep = [o for o in range(truth.shape[1]) if o not in problem.constants]
    difference = values[:, keep] - truth[:, keep]
    relative = difference.norm(dim=0) / truth[:, keep].norm(dim=0).clamp_min(1e-300)
    return float(relative.max()), float(difference.abs().max())


def _root_mean_square(field: nn.Module, heldout: Objective) -> float:
    """Compute the root mean square of the equation's residuals, all of them together, at the held-out points."""
    term = next(term for term in heldout.terms if term.inside)
    with torch.no_grad():
        return float(torch.cat(term.at(field, heldout.sets[term.name])).square().mean().sqrt())


def _relative(field: nn.Module, heldout: Objective) -> float | None:
    """Compute the held-out residual relative to that of u = 0; None where that is zero or not finite."""
    zero = zero_cost(field, heldout)
    with torch.no_grad():
        return math.sqrt(float(heldout.cost(field)) / zero) if zero > 0 else None


def _metrics(
    problem: Problem, found: Iterate, run: Runner, missed: Sequence[Violation], seconds: float
) -> dict[str, Any]:
    field, heldout = found.field, found.heldout
    x = test_points(problem)
    values = evaluate(field, x)
    relative, largest = errors(problem, values, x) if problem.exact is not None else (None, None)
    metrics: dict[str, Any] = {
        "relative_l2": relative,
        "max_error": largest,
        "seconds": seconds,
        "iterations": run.iterations,
        "collocation_points": run.iterate.objective.count,
        "parameters": sum(p.numel() for p in field.parameters() if p.requires_grad),
        "heldout_residual": _root_mean_square(field, heldout),
        "heldout_relative": _relative(field, heldout),
        "boundary_violation": max((one.largest for one in missed), default=0.0),
        "conditions": [{"name": one.name, "violation": one.largest, "relative": one.relative} for one in missed],
        "steps_per_second": run.iterations / seconds,
    }
    found_values = [float(values[:, output].mean()) for output in problem.constants]
    truths: list[float | None] = list(problem.constants.values())
    unknowns = unknowns_of(field)
    if unknowns is not None:
        found_values += unknowns.tolist()
        truths += [one.truth for one in problem.unknowns]
    if found_values:
        metrics |= {"coefficients": found_values, "coefficients_true": truths}
    return metrics
