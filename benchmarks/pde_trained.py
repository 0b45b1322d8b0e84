"""Train two hidden layers on problems of the catalogue: errors of the recipe `trained` and of others, seed by seed.

    python benchmarks/pde_trained.py [--problems NAME ...] [--recipes NAME ...] [--seeds 0 1 2] [--seconds 60] [--add]
    python benchmarks/pde_trained.py --problems burgers allen-cahn --recipes windows --seconds 600 --add

One core, float64, `seconds` of the processor for each solve; --add keeps the lines that are there. results/pde_trained.csv
has a line a solve: the relative L2 error, processor seconds, steps, parameters, and what `cpikan.learning.trained` says: the
share of the output coefficients, and how much worse the drawn hidden layers are with the output layer alone solved for.
`poisson-5d` is Laplacian u = f on the unit cube of five axes, u the sum of cos(pi x) over them. Exact walls would leave the
network nothing: a lift of the walls has every sum of functions of fewer axes. Its walls are held by squares.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem as named
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

CSV = Path(__file__).parent / "results" / "pde_trained.csv"
PROBLEMS = ("poisson-2d", "helmholtz-2d-1-4", "poisson-3d-mixed", "poisson-5d", "kovasznay", "burgers", "allen-cahn")
FIELDS = (
    "problem", "recipe", "seed", "relative_l2", "processor_s", "steps", "parameters", "output_share", "frozen_over_found",
    "trained", "trust",
)  # fmt: skip


def poisson_5d() -> Problem:
    """Pose the sum of five cosines."""

    def exact(x: Tensor) -> Tensor:
        return torch.cos(math.pi * x).sum(dim=-1)

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0] + math.pi**2 * exact(x)

    region = box([0.0] * 5, [1.0] * 5, ["a", "b", "c", "d", "e"])
    return Problem("poisson-5d", region, residual, [dirichlet(exact)], exact, "exact formula", second="laplacian")


def row(problem: str, recipe: str, seed: int, seconds: float) -> dict[str, object]:
    """Solve once."""
    begun = time.process_time()
    posed, constraints = (poisson_5d(), "penalty") if problem == "poisson-5d" else (named(problem), None)
    settings = SolveSettings(seconds=seconds, clock="processor", constraints=constraints)
    found = solve(posed, recipe=recipe, seed=seed, settings=settings)
    took, metrics = time.process_time() - begun, found.metrics
    return {
        "problem": problem,
        "recipe": recipe,
        "seed": seed,
        "relative_l2": f"{metrics['relative_l2']:.3g}",
        "processor_s": f"{took:.1f}",
        "steps": metrics["iterations"],
        "parameters": metrics["parameters"],
        "output_share": f"{metrics['output_share']:.3f}" if "output_share" in metrics else "",
        "frozen_over_found": f"{metrics['frozen_over_found']:.3g}" if "frozen_over_found" in metrics else "",
        "trained": metrics.get("trained", ""),
        "trust": found.trust,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--recipes", nargs="+", default=["trained"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with given.csv.open("a" if given.add else "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not given.add:
            writer.writeheader()
        for problem in given.problems:
            for recipe in given.recipes:
                for seed in given.seeds:
                    found = row(problem, recipe, seed, given.seconds)
                    print(found, flush=True)
                    writer.writerow(found)
                    file.flush()


if __name__ == "__main__":
    main()
