"""SolveSettings: what a solve may use, where it looks, how it trains, and where its state is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cpikan.errors import NUMBER, InputError, check_type
from cpikan.fields.constrained import Ansatz
from cpikan.learning.balancers.balancer import Balancer
from cpikan.learning.balancers.kinds import balancer_named
from cpikan.learning.combinators import check_restarts
from cpikan.learning.correction import check_below, corrected
from cpikan.learning.directions.direction import Direction
from cpikan.learning.directions.kinds import direction_named
from cpikan.learning.losses.kinds import loss_mode_of
from cpikan.learning.losses.loss_mode import LossMode
from cpikan.learning.recipes import BY_FORM, Recipe
from cpikan.learning.runner import Budget, Callback
from cpikan.learning.samplers.kinds import SAMPLERS, make_sampler
from cpikan.learning.samplers.points import Points
from cpikan.learning.samplers.sampler import Sampler, check_sampler
from cpikan.learning.solution import Solution
from cpikan.learning.strategies.auto import AutoStrategy
from cpikan.learning.strategies.blocks import Blocks
from cpikan.learning.strategies.patchwork import can_patch
from cpikan.learning.strategies.windows import can_window
from cpikan.learning.subdomains import Subdomains, subdomains_of
from cpikan.learning.transfer import check_start, waves_of
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box
from cpikan.streaming.events import SILENT, Events
from cpikan.streaming.ranks import ALONE, Ranks


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
    "symmetric" the same of values alone, by a form that is even or odd where the solution is, "penalty" by squares,
    "augmented-lagrangian" and "al-pinn" by multipliers too. ``loss_mode`` says what stands in the cost for the equation, by
    itself or by its name (`LOSS_MODES`). ``start_from`` is a solution, or where one was saved, of this or another problem:
    a copy of its network is the start (`transferred`). ``correct`` is a solution of this problem, or where one was saved:
    it stays as it is, and a network on top of it is trained (`corrected`). With points or any of these seven a recipe
    trains a network, whatever it does without. ``subdomains`` (`Subdomains`, or "4x4") cut the region, each with a field of
    its own.
    ``ranks`` are processes among which the subdomains are shared (`ranks_here`).
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
    subdomains: Subdomains | str | Sequence[int] | None = None
    ranks: Ranks = ALONE
    correct: Solution | Path | str | None = None

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
        if self.correct is not None:
            check_below(self.correct)
            if self.start_from is not None:
                raise InputError("a solution to correct and one to start from: give one of them")
        if self.subdomains is not None:
            object.__setattr__(self, "subdomains", subdomains_of(self.subdomains))
            if self.start_from is not None:
                raise InputError("subdomains and a solution to start from: give one of them")
        if self.sampler_every is not None and not isinstance(self.points, str):
            raise InputError(f"a sampler every {self.sampler_every} steps: name one of {', '.join(SAMPLERS)}")

    def sampling(self, problem: Problem, base: Points) -> SolveSettings:
        """Make the sampler that is named begin with the points ``base``, or place them as subdomains ask for.

        Raises InputError for an unknown name, and a sampler beside points of subdomains' own.
        """
        placed = base if self.cut is None else self.cut.placing(problem, base)
        if self.points is None and placed is not base:
            return replace(self, points=placed)
        if placed is not base:
            raise InputError("a sampler and points or weights of subdomains' own: give one of them")
        if not isinstance(self.points, str):
            return self
        return replace(self, points=make_sampler(self.points, base, self.sampler_every), sampler_every=None)

    @property
    def cut(self) -> Subdomains | None:
        """Return the subdomains, None for the whole region."""
        return self.subdomains if isinstance(self.subdomains, Subdomains) else None

    def coupled(self, problem: Problem) -> Problem:
        """Add to a problem what couples the subdomains, where they meet."""
        return problem if self.cut is None else self.cut.coupled(problem)

    @property
    def trains(self) -> bool:
        """Tell whether there is something asked for that only the training of a network has."""
        asked = (
            self.points,
            self.balancer,
            self.direction,
            self.batch,
            self.constraints,
            self.start_from,
            self.correct,
        )
        return any(part is not None for part in asked) or loss_mode_of(self.loss_mode).trains

    def applied(self, recipe: Recipe, problem: Problem) -> Recipe:
        """Put all that is asked for into a recipe; raises InputError for what does not go together."""
        recipe = loss_mode_of(self.loss_mode).applied(recipe)
        if self.steps is None and self.subdomains is None:
            recipe = recipe.within(self.seconds)
        if self.start_from is not None:
            recipe = replace(recipe, waves=waves_of(self.start_from))
        elif self.cut is None and self.constraints != "symmetric" and not loss_mode_of(self.loss_mode).trains:
            recipe = recipe.seeing(problem)
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

        Unasked a recipe holds values on boxes, as functions of coordinates that have slopes or periods train more slowly, and
        none at the ends of axes with waves, which are waves no more when divided by a distance that vanishes there. Raises
        InputError where "exact" was asked for and there is nothing to hold.
        """
        if self.correct is not None:
            return corrected(self.correct, problem)
        asked, symmetric = self.constraints in BY_FORM, self.constraints == "symmetric"
        if symmetric and (self.cut is not None or not drawn):
            what = "a field of yours" if self.cut is None else "subdomains"
            raise InputError(f"constraints symmetric with {what}: the network has coordinates of its own, give exact")
        if not recipe.exact_values or not (asked or (drawn and isinstance(problem.region, Box))):
            return problem, None
        embedded = drawn and asked and self.cut is None and not symmetric
        free = () if asked else sorted({axis for axis, _ in recipe.waves})
        found = with_exact_conditions(problem, embedded=embedded, symmetric=symmetric, free=free)
        if found[1] is None and symmetric:
            raise InputError(
                f"{problem.name} has nothing that is even or odd about the middle of a box, or no values at its ends: give "
                "constraints exact"
            )
        if found[1] is None and asked:
            raise InputError(
                f"no condition of {problem.name} can be held by the form of the solution: give constraints='penalty' or "
                "'augmented-lagrangian'"
            )
        return found

    def finding(self, recipe: Recipe, problem: Problem) -> Recipe:
        """Let a recipe march where it has a strategy for what evolves, solve for series on subdomains at once where it is free
        to choose, or else train networks there."""
        if self.cut is None:
            marches = recipe.evolving is not None and not (self.trains or recipe.waves) and can_window(problem)
            return replace(recipe, own=recipe.evolving) if marches else recipe
        free = isinstance(recipe.own, AutoStrategy) and not (self.trains or self.cut.local) and can_patch(problem)
        asked = {
            "refine": self.cut.refine,
            "modes": self.cut.modes is not None,
            "schwarz": self.cut.schwarz is not None,
        }
        if not free and any(asked.values()):
            what = next(name for name, given in asked.items() if given)
            raise InputError(
                f"{what} of subdomains for recipe {recipe.name}, which trains networks there: give recipe default, and an "
                "equation without integrals and unknown coefficients"
            )
        return replace(recipe, own=Blocks(self.cut) if free else None)

    @property
    def budget(self) -> Budget:
        """Return the limits on seconds, steps and tolerance."""
        return Budget(self.seconds, self.steps, self.rtol, self.clock)


DEFAULTS = SolveSettings()
