"""Points where residuals are taken, and stay: five rules on the unit cube, spread over regions and their boundaries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import nn

from cpikan.errors import InputError, unknown_name
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, PointSet
from cpikan.learning.samplers.sampler import check_whole
from cpikan.physics.problem import Condition, Problem
from cpikan.physics.regions import Box, inner_parts

RULES = ("chebyshev", "grid", "latin-hypercube", "sobol", "random")
_HELD_OUT_EVERY = 4  # of measured values
MIN_ROWS_PER_PARAMETER = 2.0  # residual rows per parameter; with fewer, residuals vanish at the points alone


@dataclass(frozen=True)
class Points:
    """How points are chosen: ``interior`` so many inside, ``boundary`` so many in all, by ``rule``, from ``seed``.

    "chebyshev" clusters a low-discrepancy set (in one dimension Chebyshev's nodes) by the arcsine law towards the
    boundary; it resolves polynomials of twice the degree that even points do before they alias. The other rules are even.
    Of measured data ``held_out`` points are every fourth, others the rest; fewer than four are both.
    """

    interior: int
    boundary: int
    rule: str = "chebyshev"
    seed: int = 0
    held_out: bool = False

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise unknown_name("rule of points", self.rule, RULES)
        check_whole("Points", interior=self.interior, boundary=self.boundary, seed=self.seed)
        if self.seed < 0:
            raise InputError(f"seed {self.seed} of points: give 0 or more")
        if self.interior < 1 or self.boundary < 0:
            raise InputError(f"{self.interior} interior and {self.boundary} boundary points: give at least 1 and 0")

    @property
    def every(self) -> int:
        """Return 0: points by a rule are never placed anew."""
        return 0

    @property
    def adds(self) -> bool:
        """Tell that the number of points stays."""
        return False

    def sized(self, interior: int) -> Self:
        """Take another number of interior points; of the same low-discrepancy sequence, so that few are part of many."""
        return replace(self, interior=interior)

    def init(self, problem: Problem) -> tuple[Mapping[str, PointSet], State]:
        """Draw the points of all terms."""
        sets = {"equation": equation_points(problem, self)}
        for name, condition in zip(problem.condition_names, problem.conditions, strict=True):
            sets[name] = _condition_points(problem, condition, self)
        return sets, {}

    def update(self, problem: Problem, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Keep the points."""
        return objective, state

    def held_out_sampler(self) -> Points:
        """Give held-out points of another rule: random, about half as many, from another seed."""
        return Points(max(200, self.interior // 2), max(8, self.boundary // 2), "random", self.seed + 7919, True)


def equation_points(problem: Problem, points: Points) -> PointSet:
    """Place the points of the equation, or of the form that stands for it or judges in its place."""
    form = problem.form.judge if problem.form is not None and points.held_out else problem.form
    if form is None or form.place is None:
        return PointSet(_tensor(interior_points(problem, points)))
    found = form.place(points.interior, points.seed, points.held_out)
    return PointSet(found.points, weight=found.weight, tests=found.tests, element=found.element)


def interior_points(problem: Problem, points: Points) -> np.ndarray:
    """Place points (n, d) inside the region; a grid has the nearest full number at or above what was asked for."""
    unit = unit_points(points.interior, problem.dimension, points.rule, points.seed)
    density = problem.energy is not None or (problem.form is not None and problem.form.kind == "density")
    clustered = points.rule == "chebyshev" and not density  # means over even points are integrals
    return problem.region.inside(unit, clustered)


def boundary_points(problem: Problem, condition: Condition, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Place points and normals (n, d) of a condition: its share of the boundary points, one per end in 1-D."""
    if condition.at is not None:
        given = condition.at.double().numpy()
        whole = condition.mix is not None or condition.across is not None
        given = given if whole else given[measured_part(len(given), points)]
        return given, np.zeros_like(given)
    parts = problem.region.walls if condition.on is None else condition.on
    if not parts:
        raise InputError(f"condition {condition.name} of {problem.name} is on no part of the boundary: name one")
    everywhere = len(problem.region.parts)
    count = 1 if problem.dimension == 1 else max(2, math.ceil(points.boundary / everywhere))
    found = []
    for part in parts:
        number = problem.region.parts.index(part)
        unit = unit_points(count, problem.dimension - 1, points.rule, points.seed + 1000 * (number + 1))
        found.append(problem.region.on(part, unit, points.rule == "chebyshev"))
    positions, normals = zip(*found, strict=True)
    return np.concatenate(positions), np.concatenate(normals)


def _condition_points(problem: Problem, condition: Condition, points: Points) -> PointSet:
    positions, normals = (_tensor(part) for part in boundary_points(problem, condition, points))
    data = None if condition.data is None else condition.data[measured_part(len(condition.data), points)]
    partner = None if condition.across is None else condition.across.double()
    if condition.period is not None:
        assert isinstance(problem.region, Box)
        axis = problem.region.axes.index(condition.period)
        partner = positions.clone()
        partner[:, axis] = problem.region.upper[axis]
    inner = [inner_parts(problem.region).get(part) for part in condition.on or ()]
    if any(inner):  # the upper side of a break begins one number above it
        axis = next(place[0] for place in inner if place is not None)
        partner = positions.clone()
        partner[:, axis] = torch.nextafter(positions[:, axis], torch.full_like(positions[:, axis], torch.inf))
    return PointSet(positions, normals, partner, data, mix=condition.mix)


def _tensor(points: np.ndarray) -> torch.Tensor:
    """Copy points, so that they lie in memory as those of a checkpoint do: sums may round differently elsewhere."""
    return torch.from_numpy(points).clone()


def measured_part(count: int, points: Points) -> np.ndarray:
    """Find which of ``count`` measured values belong to these points: every fourth one is held out.

    Fewer than four are all fitted, and judge the fit as well: none could be spared.
    """
    if count < _HELD_OUT_EVERY:
        return np.arange(count)
    return np.flatnonzero((np.arange(count) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1) == points.held_out)


def unit_points(count: int, dimension: int, rule: str, seed: int) -> np.ndarray:
    """Place ``count`` points (or the next full grid) in the open unit cube, (n, dimension), fixed by the seed."""
    if rule not in RULES:
        raise unknown_name("rule of points", rule, RULES)
    if dimension == 0:
        return np.zeros((count, 0))
    if rule == "chebyshev" and dimension == 1:
        rule = "grid"
    return _MAKERS[rule](count, dimension, np.random.default_rng([seed, dimension]))


def _grid(count: int, dimension: int, random: np.random.Generator) -> np.ndarray:
    side = math.ceil(count ** (1 / dimension) - 1e-9)
    ticks = (np.arange(side) + 0.5) / side
    return np.array(list(itertools.product(ticks, repeat=dimension))).reshape(-1, dimension)


def _latin(count: int, dimension: int, random: np.random.Generator) -> np.ndarray:
    from scipy.stats import qmc

    return np.asarray(qmc.LatinHypercube(dimension, rng=random).random(count))


def _sobol(count: int, dimension: int, random: np.random.Generator) -> np.ndarray:
    from scipy.stats import qmc

    # the first of a power of 2: other counts, which lose balance that nothing here relies on, are warned of
    found = qmc.Sobol(dimension, scramble=True, rng=random).random_base2(max(0, count - 1).bit_length())[:count]
    return np.asarray(np.clip(found, 1e-9, 1 - 1e-9))


def _random(count: int, dimension: int, random: np.random.Generator) -> np.ndarray:
    return random.random((count, dimension))


_MAKERS: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "chebyshev": _sobol,
    "grid": _grid,
    "latin-hypercube": _latin,
    "sobol": _sobol,
    "random": _random,
}
