"""Stages against one stage at equal processor time: levels on top of each other, transfer, curricula, networks of boxes' own.

    python benchmarks/levels.py [STUDY ...] [--seeds 5]

Every variant of a study has the same processor seconds for all of its stages together (`seconds` of `STUDIES`), and the same
seeds, on one core in float64. Lines of the studies in results/levels.csv are replaced: `lower` is 1 where the error is below
that of the variant `one stage` of the same seed, `ratio` that error over this one, `processor_s` what the solves took.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.learning.curriculum import Curriculum, solve_curriculum
from cpikan.learning.local import Local
from cpikan.learning.recipes import RECIPES, Recipe
from cpikan.learning.solution import Solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stack import StackLevel, solve_stack
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem, dirichlet, pinned
from cpikan.physics.regions import box

CSV = Path(__file__).parent / "results" / "levels.csv"
FIELDS = ("study", "variant", "seed", "relative_l2", "lower", "ratio", "parameters", "iterations", "processor_s")
ONE = "one stage"
TRAINED = RECIPES["trained"]
OWN = replace(RECIPES["default"], own=None, hidden=(8,), degree=6)  # output layer, Levenberg-Marquardt, output layer
Run = Callable[[int, SolveSettings], Solution]


def two_frequencies() -> Problem:
    """Pose u' = cos t + 15 cos(15 t) on [0, 20], u(0) = 0 (Heinlein et al. 2024, 4.2)."""

    def residual(u: Jet, x: Tensor) -> Tensor:
        t = x[..., 0]
        return u.gradient[..., 0, 0] - torch.cos(t) - 15 * torch.cos(15 * t)

    def exact(x: Tensor) -> Tensor:
        return torch.sin(x[..., 0]) + torch.sin(15 * x[..., 0])

    return Problem("two frequencies", box([0.0], [20.0]), residual, [pinned([0.0])], exact, second="none")


def layer(eps: float = 0.003) -> Problem:
    """Pose -eps u'' + u' = 1 on [0, 1], u = 0 at both ends: a layer at x = 1."""

    def exact(x: Tensor) -> Tensor:
        return x[..., 0] - (torch.exp((x[..., 0] - 1) / eps) - math.exp(-1 / eps)) / (1 - math.exp(-1 / eps))

    def residual(u: Jet, x: Tensor) -> Tensor:
        return -eps * u.second[..., 0, 0] + u.gradient[..., 0, 0] - 1

    return Problem("layer 1d", box([0.0], [1.0]), residual, [dirichlet(0.0)], exact)


def one(posed: Problem, recipe: Recipe, cut: Subdomains | None = None) -> Run:
    """Solve in one stage."""
    return lambda seed, given: solve(posed, recipe=recipe, seed=seed, settings=replace(given, subdomains=cut))


def stack(posed: Problem, *levels: StackLevel) -> Run:
    """Solve level by level."""
    return lambda seed, given: solve_stack(posed, levels, seed=seed, settings=given)


def lessons(name: str, parameter: str, values: tuple[float, ...], recipe: Recipe) -> Run:
    """Solve with a parameter at one value after the other."""
    course = Curriculum.of(name, parameter, values)
    return lambda seed, given: solve_curriculum(course, None, recipe, seed=seed, settings=given)


@dataclass(frozen=True)
class Study:
    """Variants by name, the first of them in one stage, and the processor seconds of each."""

    seconds: float
    variants: dict[str, Run]


WAVES, PI = problem("helmholtz-2d-1-4"), math.pi
TWO, THIN = two_frequencies(), layer()
CUTS = ((0, 0.96, 1),)
STUDIES = {
    "levels": Study(
        4,
        {
            ONE: one(WAVES, TRAINED),
            "one stage, as many parameters": one(WAVES, replace(TRAINED, hidden=(18, 18))),
            "two levels": stack(WAVES, StackLevel(TRAINED), StackLevel(TRAINED)),
        },
    ),
    "windows": Study(
        4,
        {
            ONE: one(TWO, OWN, Subdomains(16)),
            "one network, as many parameters": one(TWO, replace(OWN, hidden=(18, 18))),
            "levels of 1, 4 and 16 windows": stack(
                TWO, *(StackLevel(OWN, None if n == 1 else Subdomains(n)) for n in (1, 4, 16))
            ),
        },
    ),
    "k": Study(
        3,
        {
            ONE: one(problem("helmholtz-1d", k=8 * PI), TRAINED),
            "transfer from 7 pi": lessons("helmholtz-1d", "k", (7 * PI, 8 * PI), TRAINED),
            "curriculum 2, 4, 8 pi": lessons("helmholtz-1d", "k", (2 * PI, 4 * PI, 8 * PI), TRAINED),
        },
    ),
    "speed": Study(
        3,
        {
            ONE: one(problem("advection", speed=30.0), TRAINED),
            "curriculum 10, 20, 30": lessons("advection", "speed", (10.0, 20.0, 30.0), TRAINED),
        },
    ),
    "local": Study(
        2,
        {
            ONE: one(THIN, OWN),
            "two boxes alike": one(THIN, OWN, Subdomains(coupling="cpinn", knots=CUTS)),
            "two boxes, each its own": one(
                THIN,
                OWN,
                Subdomains(
                    coupling="cpinn",
                    knots=CUTS,
                    local={(0,): Local(hidden=(4,), degree=4), (1,): Local(hidden=(10,), degree=8, points=3.0)},
                ),
            ),
        },
    ),
}


def lines(name: str, seeds: int) -> list[dict[str, object]]:
    """Solve all variants of a study from every seed."""
    found, study = [], STUDIES[name]
    for seed in range(seeds):
        first = math.nan
        for variant, run in study.variants.items():
            solution = run(seed, SolveSettings(seconds=study.seconds, clock="processor"))
            metrics = solution.metrics
            error = metrics["relative_l2"]
            first = error if variant == ONE else first
            figures = (f"{error:.3g}", int(error < first), f"{first / error:.3g}", metrics["parameters"])
            row = (name, variant, seed, *figures, metrics["iterations"], f"{metrics['seconds']:.1f}")
            found.append(dict(zip(FIELDS, row, strict=True)))
            print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=", ".join(STUDIES))
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept: list[dict[str, object]] = []
    if CSV.is_file():
        with CSV.open(newline="") as file:
            kept = list(csv.DictReader(file))
    for name in given.studies or STUDIES:
        kept = [row for row in kept if row["study"] != name] + lines(name, given.seeds)
        with CSV.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(sorted(kept, key=lambda row: list(STUDIES).index(str(row["study"]))))


if __name__ == "__main__":
    main()
