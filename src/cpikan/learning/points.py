"""Points where residuals are taken: five rules on the unit cube, spread over regions and their boundaries."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.physics.problem import Condition, Problem

RULES = ("chebyshev", "grid", "latin-hypercube", "sobol", "random")
GUARD = 2.0  # residual rows per parameter; with fewer, residuals vanish at the points alone


@dataclass(frozen=True)
class Points:
    """How points are chosen: ``interior`` so many inside, ``boundary`` so many in all, by ``rule``, from ``seed``.

    "chebyshev" clusters a low-discrepancy set (in one dimension Chebyshev's nodes) by the arcsine law towards the
    boundary; it resolves polynomials of twice the degree that even points do before they alias. The other rules are even.
    Of measured data ``held_out`` points are every fourth, others the rest.
    """

    interior: int
    boundary: int
    rule: str = "chebyshev"
    seed: int = 0
    held_out: bool = False

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise unknown_name("rule of points", self.rule, RULES)
        if self.interior < 1 or self.boundary < 0:
            raise InputError(f"{self.interior} interior and {self.boundary} boundary points: give at least 1 and 0")


def interior_points(problem: Problem, points: Points) -> np.ndarray:
    """Points (n, d) inside the region; a grid has the nearest full number at or above what was asked for."""
    unit = unit_points(points.interior, problem.dimension, points.rule, points.seed)
    return problem.region.inside(unit, points.rule == "chebyshev")


def boundary_points(problem: Problem, condition: Condition, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals (n, d) of a condition: its share of the boundary points, one per end in one dimension."""
    if condition.at is not None:
        given = condition.at.numpy()[measured_part(len(condition.at), points)]
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


def measured_part(count: int, points: Points) -> np.ndarray:
    """Which of ``count`` measured values belong to these points."""
    return np.flatnonzero((np.arange(count) % 4 == 3) == points.held_out)


def unit_points(count: int, dimension: int, rule: str, seed: int) -> np.ndarray:
    """``count`` points (or the next full grid) in the open unit cube, (n, dimension); the same for the same seed."""
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
    cells = np.stack([random.permutation(count) for _ in range(dimension)], axis=-1)
    return (cells + random.random((count, dimension))) / count


def _sobol(count: int, dimension: int, random: np.random.Generator) -> np.ndarray:
    from scipy.stats import qmc

    with warnings.catch_warnings():  # counts that are no power of 2 lose balance; nothing here relies on it
        warnings.simplefilter("ignore", UserWarning)
        found = qmc.Sobol(dimension, scramble=True, rng=random).random(count)
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
