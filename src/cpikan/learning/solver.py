"""solve: a problem, a field and a recipe to a solution that says how good it is and why it stopped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.checkpoint import Checkpoint, described
from cpikan.learning.points import GUARD, Points
from cpikan.learning.recipes import Recipe, recipe_named
from cpikan.learning.restart import Restart, check_restarts, worth_restarting
from cpikan.learning.rows import Rows
from cpikan.learning.run import History, Run
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.problem import Problem
from cpikan.physics.resonance import near_resonance

_CHUNK = 4096  # points evaluated at once
SIDES = {1: 2001, 2: 201, 3: 41}  # test points per axis


@dataclass(frozen=True)
class SolveSettings:
    """``seconds`` bounds the time; ``points`` replaces the recipe's; ``told`` hears a line of progress now and then.

    ``checkpoint`` is a folder where the state is kept, every ``checkpoint_s`` seconds and after every stage; with ``resume``
    a solve goes on from there as if it had not been interrupted (the seconds used before count), or begins where nothing
    is. ``restarts`` replaces the recipe's.
    """

    seconds: float = 60.0
    points: Points | None = None
    told: Callable[[str], None] | None = None
    checkpoint: Path | str | None = None
    resume: bool = False
    checkpoint_s: float = 5.0
    restarts: int | None = None

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise InputError("resume without a checkpoint: name its folder")
        if not self.checkpoint_s >= 0:
            raise InputError(f"checkpoints every {self.checkpoint_s} s: give 0 or more")
        check_restarts(self.restarts or 0)


@dataclass(frozen=True)
class Solution:
    """The field that was found, what happened on the way, why it ended, and figures of merit.

    ``metrics`` has relative_l2 (the largest over outputs) and max_error against the reference (None without one), seconds,
    iterations, collocation_points, parameters, heldout_residual (root mean square of the equation at points not fitted),
    boundary_violation (largest residual of a condition), steps_per_second, and coefficients of an inverse problem.
    """

    problem: Problem
    field: nn.Module
    history: History
    stop_reason: StopReason
    metrics: dict[str, Any]
    seed: int
    warnings: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """One flat record, as the command line prints it."""
        reason = self.stop_reason
        return {"problem": self.problem.name, **self.metrics, "stop_reason": reason.name.lower(), "seed": self.seed}


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
    problem = problem_named(problem) if isinstance(problem, str) else problem
    recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
    own = recipe.own if field is None and settings.points is None else None
    if own is None:
        field = recipe.network(problem, seed) if field is None else field
        check_field(problem, field)
    checkpoint = _checkpoint(problem, field, recipe, seed, settings)
    with nullcontext() if checkpoint is None else checkpoint.locked():
        return _solved(problem, field, recipe, seed, settings, checkpoint)


def _solved(
    problem: Problem,
    field: nn.Module | None,
    recipe: Recipe,
    seed: int,
    settings: SolveSettings,
    checkpoint: Checkpoint | None,
) -> Solution:
    """Run the recipe from the checkpoint's state, or from the start, and measure the solution."""
    own = recipe.own if field is None and settings.points is None else None
    saved = None if checkpoint is None else checkpoint.open(settings.resume)
    run = Run(problem, settings.seconds, seed, settings.told, checkpoint)
    resumed = run.restore(saved, field)
    if own is not None:
        reason = run.stage(own)
    else:
        assert field is not None
        if not resumed:
            points = settings.points or recipe.points(problem, sum(p.numel() for p in field.parameters()), seed)
            run.place(field, points, balanced=recipe.balanced)
        reason = _stages(run, recipe, recipe.restarts if settings.restarts is None else settings.restarts)
    metrics, warnings = _metrics(run, run.seconds), _warnings(run, own is None)
    if saved is not None and run.iterations == saved.numbers["iterations"] and reason is not StopReason.TIME:
        warnings.append(f"the solve in {settings.checkpoint} had been finished: nothing was left to do")
    return Solution(problem, run.field, run.history, reason, metrics, seed, tuple(warnings))


def _stages(run: Run, recipe: Recipe, restarts: int) -> StopReason:
    """The stages of a recipe, from new starts where they end stuck; the reason is that of the start that stays."""
    for attempt in range(restarts + 1):
        if attempt:
            run.part(Restart(attempt))
        reason = StopReason.BUDGET
        for stage in recipe.stages:
            reason = run.stage(stage)
            ended = run.left_s <= 0 or reason in (StopReason.BAD_START, StopReason.TARGET) or run.at_goal()
            if ended and not run.went_on:
                break
        if len(run.reached) <= attempt:
            run.reached.append((run.best_cost, reason))
        if not run.went_on and not worth_restarting(run, reason):
            break
    run.settle()
    return min(run.reached, key=lambda one: one[0])[1]


def _checkpoint(
    problem: Problem, field: nn.Module | None, recipe: Recipe, seed: int, settings: SolveSettings
) -> Checkpoint | None:
    """Where the state of this solve is kept, with all that must be equal when it is resumed."""
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
        "recipe's settings": described(recipe),
        "seed": seed,
        "points": None if settings.points is None else vars(settings.points),
        "restarts": settings.restarts,
        "field": shape,
    }
    return Checkpoint(settings.checkpoint, identity, settings.checkpoint_s)


def _warnings(run: Run, given: bool) -> list[str]:
    """What the user should know besides the figures."""
    found = []
    rows, parameters = len(run.rows.residuals(run.field)), sum(p.numel() for p in run.field.parameters())
    if given and rows < GUARD * parameters:
        found.append(f"{rows} residuals for {parameters} parameters: give twice as many, or check held-out figures")
    resonance = near_resonance(run.problem) if run.rows.affine(run.problem.outputs) else None
    if resonance is not None:
        found.append(resonance)
    return found


def check_field(problem: Problem, field: nn.Module) -> None:
    """Raise InputError for a field that cannot hold a solution of the problem."""
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
    if scaling is not None:
        low, high = (torch.tensor(v, dtype=torch.float64) for v in (problem.region.lower, problem.region.upper))
        slack = 1e-9 * (high - low)
        if bool((scaling.lower > low + slack).any()) or bool((scaling.upper < high - slack).any()):
            raise InputError(
                f"points of {problem.name} lie outside the field's domain: give domain=({problem.region.lower}, "
                f"{problem.region.upper}) or a larger one"
            )


def test_points(problem: Problem) -> Tensor:
    """An even grid over the region, ends included, (n, d)."""
    ticks = np.linspace(0, 1, SIDES.get(problem.dimension, 12))
    unit = np.stack(np.meshgrid(*[ticks] * problem.dimension, indexing="ij"), axis=-1).reshape(-1, problem.dimension)
    return torch.from_numpy(problem.region.inside(unit, clustered=False))


@torch.no_grad()
def evaluate(field: nn.Module, x: Tensor) -> Tensor:
    """Values (n, outputs) at points (n, d), in chunks."""
    return torch.cat([field(part) for part in x.split(_CHUNK)])


def errors(problem: Problem, values: Tensor, x: Tensor) -> tuple[float, float]:
    """The relative L2 and the largest absolute error of values (n, outputs) against the reference, worst output."""
    truth = problem.reference_values(x)
    keep = [o for o in range(truth.shape[1]) if o not in problem.constants]
    difference = values[:, keep] - truth[:, keep]
    relative = difference.norm(dim=0) / truth[:, keep].norm(dim=0).clamp_min(1e-300)
    return float(relative.max()), float(difference.abs().max())


def _metrics(run: Run, seconds: float) -> dict[str, Any]:
    problem, field = run.problem, run.field
    x = test_points(problem)
    values = evaluate(field, x)
    relative, largest = errors(problem, values, x) if problem.exact is not None else (None, None)
    with torch.no_grad():
        violation, inside = 0.0, 0.0
        for one in run.heldout.sets:
            found = Rows((one,)).residuals(field) / one.weight
            if one.inside:
                inside = float(found.square().mean().sqrt())
            else:
                violation = max(violation, float(found.abs().max()))
    metrics: dict[str, Any] = {
        "relative_l2": relative,
        "max_error": largest,
        "seconds": seconds,
        "iterations": run.iterations,
        "collocation_points": run.rows.count,
        "parameters": sum(p.numel() for p in field.parameters()),
        "heldout_residual": inside,
        "boundary_violation": violation,
        "steps_per_second": run.iterations / seconds,
    }
    if problem.constants:
        metrics["coefficients"] = [float(values[:, output].mean()) for output in problem.constants]
        metrics["coefficients_true"] = list(problem.constants.values())
    return metrics
