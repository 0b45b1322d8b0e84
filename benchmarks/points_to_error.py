"""Interior points at once for a relative L2 error of 1e-8: the default recipe, ended by its own held-out residual.

    python benchmarks/points_to_error.py [--problems NAME ...] [--seeds 0 1 2] [--rtol 1e-8]

One core, float64. A solve ends at the first level whose relative held-out residual is within ``rtol``; nothing else tells it
how many points there may be. results/points_to_error.csv has a line a solve: the interior points of the last level, which
has the most, all points of it, its parameters, the relative L2 error and processor seconds.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch

from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem
from pde_watch import points_at_once, watched

CSV = Path(__file__).parent / "results" / "points_to_error.csv"
PROBLEMS = ("helmholtz-1d", "helmholtz-1d-k4pi", "poisson-2d", "helmholtz-2d-1-4")
FIELDS = ("problem", "seed", "interior_points", "collocation_points", "parameters", "relative_l2", "processor_s")


def row(name: str, seed: int, rtol: float) -> dict[str, object]:
    """Solve once."""
    one, begun = problem(name), time.process_time()
    with watched(one) as clock:
        found = solve(one, seed=seed, settings=SolveSettings(rtol=rtol))
        points = points_at_once(found, clock.run)
    metrics = found.metrics
    return {
        "problem": name,
        "seed": seed,
        "interior_points": points,
        "collocation_points": metrics["collocation_points"],
        "parameters": metrics["parameters"],
        "relative_l2": f"{metrics['relative_l2']:.3g}",
        "processor_s": f"{time.process_time() - begun:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rtol", type=float, default=1e-8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    solve("poisson-1d", settings=SolveSettings(seconds=5))  # imports and first calls are not timed
    with CSV.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for name in given.problems:
            for seed in given.seeds:
                found = row(name, seed, given.rtol)
                print(found, flush=True)
                writer.writerow(found)
                file.flush()


if __name__ == "__main__":
    main()
