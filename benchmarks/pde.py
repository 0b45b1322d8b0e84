"""Errors and seconds of the catalogue's problems by recipe, on one core: writes results/pde.csv.

    python benchmarks/pde.py [PROBLEM ...] [--seeds 3] [--seconds 30]

Every recipe gets the same time limit. Beside the default recipe on all problems, the others run on the one-dimensional
Helmholtz problems, where the network has one hidden layer of 8 nodes (12 for the quasi-Newton recipes, [8, 8] for the
paper's). Chebyshev collocation, a polynomial per axis, stands beside every box problem.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

import torch

from cpikan.learning.baseline import collocation_baseline
from cpikan.learning.recipes import RECIPES
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem, problems

RESULTS = Path(__file__).parent / "results" / "pde.csv"
COLUMNS = (
    *("problem", "recipe", "seed", "relative_l2", "max_error", "seconds", "iterations", "collocation_points"),
    *("parameters", "heldout_residual", "boundary_violation", "stop_reason", "coefficient", "coefficient_true"),
)
COMPARED = ("helmholtz-1d", "helmholtz-1d-k4pi")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(problems()))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    solve("poisson-1d", settings=SolveSettings(seconds=5))  # imports and first calls are not timed
    with open(given.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for name in given.problems:
            for row in rows(name, given.seeds, given.seconds):
                writer.writerow(row)
                file.flush()
                print(
                    f"{row['problem']:34} {row['recipe']:20} {row['relative_l2']:9.2e} {row['seconds']:7.2f} s",
                    flush=True,
                )


def rows(name: str, seeds: int, seconds: float) -> Any:
    recipes = list(RECIPES) if name in COMPARED else ["default"]
    for recipe in recipes:
        for seed in range(seeds):
            solution = solve(name, recipe=recipe, seed=seed, settings=SolveSettings(seconds=seconds))
            found = solution.summary()
            yield {**plain(found), "recipe": recipe}
    started = time.perf_counter()
    found = collocation_baseline(problem(name))
    if found is not None:
        took = f"{time.perf_counter() - started:.3g}"
        yield plain(
            {**found, "problem": name, "recipe": "collocation", "seconds": float(took), "parameters": found["unknowns"]}
        )


def plain(row: dict[str, Any]) -> dict[str, Any]:
    out = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
    if "coefficients" in row:
        out["coefficient"] = float(f"{row['coefficients'][0]:.6g}")
        out["coefficient_true"] = row["coefficients_true"][0]
    return out


if __name__ == "__main__":
    sys.exit(main())
