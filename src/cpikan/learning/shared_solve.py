"""What a solve by several processes can do: series on subdomains, and networks there that follow their gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpikan.errors import InputError
from cpikan.learning.combinators import Strategy
from cpikan.learning.losses.kinds import loss_mode_of
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.gradient_descent import GradientDescent
from cpikan.learning.recipes import Recipe
from cpikan.learning.strategies.blocks import Blocks
from cpikan.physics.problem import Problem

if TYPE_CHECKING:
    from cpikan.learning.solve_settings import SolveSettings


_METHODS = (Adam, GradientDescent)  # that take every parameter by itself


def check_shared(problem: Problem, recipe: Recipe, own: Strategy | None, settings: SolveSettings) -> None:
    """Raise InputError for a solve that several processes cannot share."""
    count = settings.ranks.size
    if count == 1:
        return
    if settings.cut is None:
        raise InputError(
            f"{count} processes for {problem.name} in one piece: give --subdomains (subdomains=), which they share"
        )
    if settings.cut.schwarz is not None:
        raise InputError(f"a Schwarz method for {count} processes, which eliminate directly: leave it out")
    boxes = len(settings.cut.partition(problem))
    if count > boxes:
        raise InputError(f"{count} processes for {boxes} subdomains: start at most {boxes}, or give more subdomains")
    if not isinstance(own, Blocks):
        _check_networks(recipe, settings)


def _check_networks(recipe: Recipe, settings: SolveSettings) -> None:
    """Raise InputError for a way to train networks that needs more than the neighbours' values."""
    count = settings.ranks.size
    assert settings.cut is not None, "several processes share subdomains"
    if settings.cut.levels > 1:
        raise InputError(
            f"networks on {settings.cut.levels} levels of subdomains for {count} processes: give one level, or recipe default"
        )
    if not all(isinstance(stage, _METHODS) for stage in recipe.stages):
        raise InputError(
            f"recipe {recipe.name} for {count} processes: give default, which solves for series, or adam or gradient-descent, "
            "whose steps are those of every network alone"
        )
    asked = {
        "a direction": settings.direction,
        "mini-batches": settings.batch,
        "a callback": settings.callback,
        "multipliers": settings.constraints not in (None, "exact", "penalty") or None,
        "another loss mode": loss_mode_of(settings.loss_mode).trains or None,
    }
    for what in (name for name, value in asked.items() if value is not None):
        raise InputError(f"{what} for {count} processes: leave it out, or start one process")
