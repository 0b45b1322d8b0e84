"""LossMode: what stands in the cost for the equation while a network is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from cpikan.errors import InputError
from cpikan.learning.recipes import Recipe, recipe_named
from cpikan.learning.samplers.fresh import FreshPoints
from cpikan.learning.samplers.points import Points
from cpikan.physics.problem import Problem


@dataclass(frozen=True)
class LossMode:
    """The equation as it is posed: the base of all modes.

    ``trains`` tells that a network must be trained, and ``moves`` that points may be placed anywhere. A recipe that is not
    chosen (``default``) is replaced by ``recipe``.
    """

    name: ClassVar[str] = "strong"
    trains: ClassVar[bool] = False
    moves: ClassVar[bool] = True
    recipe: ClassVar[str] = "default"

    def pose(self, problem: Problem) -> Problem:
        """Put the form to be fitted into a problem; raises InputError for a problem that has none."""
        return problem

    def check(self, posed: Problem) -> None:
        """Raise InputError for a posed problem, its exact conditions taken out, whose cost has no minimum."""

    def applied(self, recipe: Recipe) -> Recipe:
        """Choose methods and network that go with the mode, where the recipe leaves them open."""
        chosen = recipe_named(self.recipe) if recipe.name == "default" else recipe
        return chosen if chosen is recipe else replace(chosen, own=None)

    def check_points(self, points: Any) -> None:
        """Raise InputError for a sampler that places points where the mode has its quadrature."""
        if not self.moves and points is not None and not isinstance(points, Points | FreshPoints):
            raise InputError(
                f"{type(points).__name__} with --loss-mode {self.name}: its points are those of a quadrature, give "
                "Points(interior, boundary) or FreshPoints, or leave the sampler out"
            )
