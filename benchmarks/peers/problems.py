"""The problems of the comparison by name: those of the catalogue, and Korteweg-de Vries."""

from __future__ import annotations

from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem
from own_problems.orders import kdv

NAMES = (
    *("helmholtz-1d", "helmholtz-1d-k4pi", "helmholtz-2d-1-4", "helmholtz-2d-6-6", "poisson-2d", "poisson-3d-mixed"),
    *("burgers", "allen-cahn", "kovasznay", "kdv", "reaction-diffusion", "helmholtz-inverse-noise1"),
)
INTERIOR = {1: 256, 2: 1024, 3: 1024}  # points by dimension, for packages that want a number
BOUNDARY = {1: 2, 2: 256, 3: 768}  # in all


def problem_named(name: str) -> Problem:
    """Make a problem of the comparison."""
    return kdv(name) if name == "kdv" else problem(name)


def varying(problem: Problem) -> list[int]:
    """List the outputs that are functions; the others stand for unknown coefficients."""
    return [output for output in range(problem.outputs) if output not in problem.constants]
