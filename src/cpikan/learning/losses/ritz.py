"""Ritz: the energy is minimised in place of the residual's squares (Deep Ritz)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from cpikan.errors import NUMBER, WHOLE, InputError, check_type
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.losses.definite import check_definite
from cpikan.learning.losses.loss_mode import LossMode
from cpikan.learning.losses.weak import Weak
from cpikan.learning.recipes import Recipe
from cpikan.physics.energy import energy_of
from cpikan.physics.form import Form, Places
from cpikan.physics.problem import Condition, Problem
from cpikan.physics.quadrature import pieced, product, rule
from cpikan.physics.regions import Box
from cpikan.physics.weak import counts_for


@dataclass(frozen=True)
class Ritz(LossMode):
    """Minimise the energy, with values on walls held exactly or as residuals that weigh ``penalty`` times as much.

    On a box it is integrated by a ``quadrature`` of ``nodes`` per axis on elements, whose places follow the seed of the
    points: between two points of a rule that stays a flexible network hides jumps that cost nothing. On other regions it
    is the mean over points that lie even. Fields are judged by the weak form where there is one, else by the residual.
    Source: E and Yu, Commun. Math. Stat. 6, 1 (2018).
    """

    nodes: int = 6
    quadrature: str = "gauss-legendre"
    penalty: float = 100.0
    name: ClassVar[str] = "ritz"
    trains: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    recipe: ClassVar[str] = "ssbroyden"

    def __post_init__(self) -> None:
        check_type("nodes of ritz", self.nodes, WHOLE, "a whole number per axis, as 6")
        check_type("penalty of ritz", self.penalty, NUMBER, "a number above 0, as 100")
        rule(self.quadrature, self.nodes)
        if not self.penalty > 0:
            raise InputError(f"penalty {self.penalty} of ritz: give more than 0, as 100")

    def pose(self, problem: Problem) -> Problem:
        """Put the energy in the equation's place, and weigh what conditions remain; raises InputError where there is none."""
        if isinstance(problem.region, Box) and problem.region.breaks:
            raise InputError(f"energy of {problem.name}: its region is a box with breaks, use --loss-mode strong")
        density, boxed = energy_of(problem), isinstance(problem.region, Box)
        form = Form(
            lambda jet, x: {"energy": density(jet, x)},
            "none" if problem.energy is None else problem.second,
            "density",
            (lambda count, seed, held_out: self._placed(problem, count, seed)) if boxed else None,
            judge=_judge(problem),
        )
        conditions = [self._weighed(condition) for condition in problem.conditions]
        return replace(problem, form=form, energy=None, conditions=conditions)

    def check(self, posed: Problem) -> None:
        """Raise InputError for an energy that is not bounded below, as that of waves beyond their first eigenvalue."""
        check_definite(posed)

    def applied(self, recipe: Recipe) -> Recipe:
        """Hold values exactly; weigh terms by their points, since a density has no rows to balance by."""
        chosen = super().applied(recipe)
        if chosen is not recipe:
            chosen = replace(chosen, hidden=(12, 12), degree=5)
        balancer = MEAN_SQUARES if chosen.balancer is KERNEL_TRACES else chosen.balancer
        return replace(chosen, own=None, exact_values=True, balancer=balancer)

    def _weighed(self, condition: Condition) -> Condition:
        return replace(condition, weight=self.penalty * condition.weight)

    def _placed(self, problem: Problem, count: int, seed: int) -> Places:
        """Place the rule on as many elements as take ``count`` points, cut at places drawn from the seed."""
        random = np.random.default_rng([seed, problem.dimension])
        cuts = [
            _cuts(low, high, number, random)
            for low, high, number in zip(
                problem.region.lower, problem.region.upper, counts_for(problem, count, self.nodes), strict=True
            )
        ]
        found = product([pieced(rule(self.quadrature, self.nodes), places) for places in cuts])
        weights = torch.from_numpy(found.weights)
        return Places(torch.from_numpy(found.nodes), weights / weights.sum())


def _cuts(low: float, high: float, count: int, random: np.random.Generator) -> np.ndarray:
    """Cut an interval into ``count`` equal parts, shifted by chance, what sticks out being split off."""
    width = (high - low) / count
    inner = low + width * (np.arange(count) + random.uniform(0.25, 0.75))
    return np.concatenate([[low], inner, [high]])


def _judge(problem: Problem) -> Form | None:
    try:
        return Weak().pose(problem).form
    except InputError:
        return None
