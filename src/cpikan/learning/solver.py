"""solve: a problem, a field and a recipe to a solution that says how good it is and why it stopped."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import WHOLE, InputError, check_type
from cpikan.fields.constrained import Ansatz
from cpikan.fields.functional import parameter_vector
from cpikan.fields.layered import LayeredField, Start
from cpikan.fields.mapped import MappedCPIKAN
from cpikan.fields.stacked import Correction
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.combinators import Restarts, Sequential
from cpikan.learning.correction import keep_below
from cpikan.learning.iterate import Iterate, placed
from cpikan.learning.losses.kinds import loss_mode_of
from cpikan.learning.objective import Objective
from cpikan.learning.panel import SOLE_JUDGE, Panel
from cpikan.learning.recipes import Recipe, recipe_named
from cpikan.learning.runner import Callback, Runner
from cpikan.learning.samplers.points import MIN_ROWS_PER_PARAMETER, Points
from cpikan.learning.shared_solve import check_shared
from cpikan.learning.solution import Solution
from cpikan.learning.solve_settings import DEFAULTS
from cpikan.learning.solve_settings import SolveSettings as SolveSettings
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.trained import trained
from cpikan.learning.transfer import transferred
from cpikan.learning.trust.assess import assess
from cpikan.learning.unknowns import network_of, outputs_of, unknowns_of, zero_output
from cpikan.learning.violations import Violation, violations, zero_cost
from cpikan.learning.wave_trial import WaveTrial, try_waves
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.problem import Problem
from cpikan.physics.resonance import near_resonance
from cpikan.streaming.ranks import same_plan
from cpikan.streaming.run_store import RunStore
from cpikan.version import VERSION

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_CHUNK = 4096  # points evaluated at once
SIDES = {1: 2001, 2: 201, 3: 41}  # test points per axis
_MOST = 70_000  # test points in four dimensions and more


def solve(
    problem: Problem | str,
    field: nn.Module | None = None,
    recipe: Recipe | str = "default",
    *,
    seed: int = 0,
    settings: SolveSettings = DEFAULTS,
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
    asked, mode = recipe, loss_mode_of(settings.loss_mode)
    tried = WaveTrial(settings.applied(recipe, problem))
    if field is None:
        tried = try_waves(tried.recipe, problem, seed, settings)
    recipe = settings.finding(tried.recipe, problem)
    own = None if settings.trains or field is not None else recipe.own
    drawn, begun = own is None and field is None, _as_it_was(field) if isinstance(field, LayeredField) else None
    if field is not None and (settings.start_from is not None or settings.cut is not None):
        what = "subdomains" if settings.cut is not None else "a solution to start from"
        raise InputError(f"a field and {what}: give one of them")
    plain, ansatz = settings.posed(problem, recipe, drawn) if own is None else (problem, None)
    formed = mode.pose(problem)
    posed = plain if formed is problem else formed if ansatz is None else settings.posed(formed, recipe, drawn)[0]
    plain, posed, whole = (settings.coupled(one) for one in (plain, posed, problem))
    point_map = None if ansatz is None else ansatz.point_map
    if own is None:
        field = tried.network if field is None else field
        field = _start(posed, ansatz, recipe, seed, settings) if field is None else field
        check_field(problem, field)
        settings = settings.sampling(problem, _points(recipe, problem, field, seed))
        mode.check_points(settings.points)
    check_shared(problem, recipe, own, settings)
    identity = _identity(problem, field, ansatz, recipe, seed, settings)
    store = _store(identity, settings)
    mode.check(posed)
    callback = _callback(settings.callback, ansatz)
    run = Runner(posed, settings.budget, seed, settings.events, store, callback, ranks=settings.ranks)
    run.started -= tried.seconds
    same_plan(
        settings.ranks, described([VERSION, identity, None if store is None else store.saved and store.saved.state])
    )
    with nullcontext() if store is None else store:
        reason = _run(run, field, recipe, settings)
    seconds, sent, warnings = (
        run.seconds,
        run.ranks.sent,
        [*_unused(asked, own is None, settings), *_warnings(problem, run, own is None)],
    )
    iterate = _by_equation(plain, run, recipe) if mode.trains else run.iterate
    found = iterate if ansatz is None else _behind(whole, ansatz, iterate, recipe, run)
    if isinstance(ansatz, Correction):
        keep_below(found, network_of(iterate.field))
    missed = violations(found.field, found.heldout, found.panel)
    metrics = _metrics(problem, found, run, missed, seconds)
    if drawn and len(recipe.hidden) > 1:
        begun = _start(posed, ansatz, recipe, seed, settings)
        begun.restart(Start(seed))
    if begun is not None:
        metrics |= trained(begun, iterate)
    metrics |= run.figures
    metrics |= {"processes": run.ranks.size, "sent_bytes": sent}
    # what a network of mapped coordinates cannot do is not known to the equation that is posed for it
    judged = (plain, iterate) if point_map is None and settings.correct is None else (whole, found)
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
    if settings.cut is not None:
        found: nn.Module = settings.cut.network(problem, recipe, seed)
    else:
        found = recipe.network(problem, seed, None if ansatz is None else ansatz.point_map)
    if settings.correct is not None:
        zero_output(found)  # what is corrected is where it begins
    return found


def _as_it_was(field: LayeredField) -> LayeredField | None:
    """Keep a field with hidden layers to train as it is given; None for others."""
    return copy.deepcopy(field) if len(field.widths) > 3 else None


def _callback(callback: Callback | None, ansatz: Ansatz | None) -> Callback | None:
    """Give the callback the field that the user asked for: the network behind its ansatz, where there is one."""
    if callback is None or ansatz is None:
        return callback
    return lambda network, record: callback(ansatz.whole(network), record)


def _behind(problem: Problem, ansatz: Ansatz, iterate: Iterate, recipe: Recipe, run: Runner) -> Iterate:
    """Put the network of an iterate behind its ansatz, to be judged by the problem as it was given."""
    field = ansatz.whole(network_of(iterate.field))
    return placed(problem, field, _points(recipe, problem, field, run.seed), MEAN_SQUARES, run.ranks)[0]


def _by_equation(problem: Problem, run: Runner, recipe: Recipe) -> Iterate:
    """Judge the field of a run by the equation's own residuals, whatever it was fitted to."""
    network, before = network_of(run.iterate.field), unknowns_of(run.iterate.field)
    found = placed(problem, network, _points(recipe, problem, network, run.seed), MEAN_SQUARES, run.ranks)[0]
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


def _store(identity: Mapping[str, Any], settings: SolveSettings) -> RunStore | None:
    """Open where the state of this solve is kept, which the first of several processes writes."""
    if settings.checkpoint is None:
        return None
    reading = settings.ranks.rank > 0
    every_s = settings.checkpoint_s
    return RunStore(settings.checkpoint, identity, resume=settings.resume, every_s=every_s, reading=reading)


def _identity(
    problem: Problem, field: nn.Module | None, ansatz: Ansatz | None, recipe: Recipe, seed: int, settings: SolveSettings
) -> dict[str, Any]:
    """Describe all of a solve that must be equal when it is resumed, and in all of its processes."""
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
        "subdomains": None if settings.cut is None else described(settings.cut),
        "field": shape,
    }
    if settings.start_from is not None and field is not None:
        identity["start"] = _hashed(field)
    if isinstance(ansatz, Correction):
        identity["below"] = _hashed(ansatz.below)
    return identity


def _hashed(field: nn.Module) -> str:
    """Hash the coefficients of a field."""
    return sha256(parameter_vector(field).numpy().tobytes()).hexdigest()[:12]


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
    if given and all(term.kind == "residual" for term in objective.terms):
        with torch.no_grad():
            rows = len(objective.residuals(field))
        if rows < MIN_ROWS_PER_PARAMETER * parameters:
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


def errors(problem: Problem, values: Tensor, x: Tensor, panel: Panel = SOLE_JUDGE) -> tuple[float, float]:
    """Compute the relative L2 and largest absolute error of values (n, outputs) against the reference, worst output.

    Of several processes each has points of its own.
    """
    truth = problem.reference_values(x) if len(x) else torch.zeros_like(values)
    keep = [o for o in range(truth.shape[1]) if o not in problem.constants]
    difference = values[:, keep] - truth[:, keep]
    relative = panel.norm(difference) / panel.norm(truth[:, keep]).clamp_min(1e-300)
    largest = torch.cat([difference.flatten().abs(), difference.new_zeros(1)]).amax(dim=0, keepdim=True)
    return float(relative.max()), float(panel.largest(largest))


def _root_mean_square(field: nn.Module, heldout: Objective, panel: Panel) -> float:
    """Compute the root mean square of the equation's residuals, all of them together, at the held-out points."""
    term = next(term for term in heldout.terms if term.inside)
    at = panel.taken(heldout.sets[term.name])
    with torch.no_grad():
        found = torch.cat(term.at(field, at)) if len(at.points) else at.points.new_zeros(0)
    square, count = panel.total(torch.stack([found.square().sum(), found.new_tensor(float(len(found)))])).tolist()
    return math.sqrt(square / count)


def _relative(found: Iterate) -> float | None:
    """Compute the held-out residual relative to that of u = 0; None where that is zero or not finite."""
    zero = zero_cost(found.field, found.heldout, found.panel)
    return math.sqrt(found.known_cost() / zero) if zero > 0 else None


def _metrics(
    problem: Problem, found: Iterate, run: Runner, missed: Sequence[Violation], seconds: float
) -> dict[str, Any]:
    field, heldout, panel = found.field, found.heldout, found.panel
    x = panel.points(test_points(problem))
    values = evaluate(field, x)
    relative, largest = errors(problem, values, x, panel) if problem.exact is not None else (None, None)
    metrics: dict[str, Any] = {
        "relative_l2": relative,
        "max_error": largest,
        "seconds": seconds,
        "iterations": run.iterations,
        "collocation_points": run.iterate.objective.count,
        "parameters": sum(p.numel() for p in field.parameters() if p.requires_grad),
        "heldout_residual": _root_mean_square(field, heldout, panel),
        "heldout_relative": _relative(found),
        "boundary_violation": max((one.largest for one in missed), default=0.0),
        "conditions": [{"name": one.name, "violation": one.largest, "relative": one.relative} for one in missed],
        "steps_per_second": run.iterations / seconds,
    }
    sums = panel.total(torch.cat([values.sum(dim=0), values.new_tensor([float(len(values))])]))
    found_values = [float(sums[output] / sums[-1]) for output in problem.constants]
    truths: list[float | None] = list(problem.constants.values())
    unknowns = unknowns_of(field)
    if unknowns is not None:
        found_values += unknowns.tolist()
        truths += [one.truth for one in problem.unknowns]
    if found_values:
        metrics |= {"coefficients": found_values, "coefficients_true": truths}
    return metrics
