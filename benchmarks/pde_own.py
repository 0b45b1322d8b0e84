"""Forty problems outside the catalogue by the default recipe: writes results/pde_own.csv.

    python benchmarks/pde_own.py [PROBLEM ...] [--seconds 60] [--seeds 1] [--resume] [-o FILE]

They are of eight classes (`own_problems`): systems of ordinary differential equations, long times, layers, coefficients
that jump, inverse problems, complex-valued ones, third and fourth order, three axes. Each has a reference of its own: a closed
form, a manufactured solution, or SciPy (DOP853 or Radau to 1e-12).
The limit is in processor seconds, so that a machine with other work gives the same table. For an inverse problem the error is
the larger of the field's and the coefficients'; ``solved`` says that it is below 1e-4. ``seeded`` tells whether the solve drew
anything: where it did not, one seed stands for all. Lines of problems that are solved anew replace those that are there.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cpikan.learning.solution import Solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.march import can_march
from cpikan.physics.problem import Problem
from own_problems import CLASSES

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    *("class", "problem", "seed", "seeded", "error", "solved", "relative_l2", "max_error", "coefficient_error"),
    *("heldout_residual", "trust", "cpu_seconds", "stop_reason", "parameters"),
)
SOLVED = 1e-4
Row = dict[str, Any]
Makers = Mapping[str, Mapping[str, Callable[[str], Problem]]]


def seeded(problem: Problem, found: Solution) -> bool:
    """Tell whether a network was drawn: breaks and what evolves in time alone have pieces and slabs, which draw nothing."""
    broken = bool(getattr(problem.region, "breaks", ()))
    alone = can_march(problem) and problem.dimension == 1 and found.stop_reason is StopReason.TARGET
    return not (broken or alone)


def run(kind: str, problem: Problem, seed: int, seconds: float) -> Row:
    """Solve a problem; gives a row of the table."""
    began = time.process_time()
    found = solve(problem, seed=seed, settings=SolveSettings(seconds=seconds, clock="processor"))
    took, m = time.process_time() - began, found.summary()
    pairs = zip(m.get("coefficients", ()), m.get("coefficients_true", ()), strict=True)
    off = max((abs(one / truth - 1) for one, truth in pairs), default=0.0)
    error = max(m["relative_l2"], off)
    row = {"class": kind, "problem": problem.name, "seed": seed, "seeded": seeded(problem, found), "error": error}
    row |= {"solved": error <= SOLVED, "cpu_seconds": took, "coefficient_error": off or None}
    row |= {key: m.get(key) for key in COLUMNS if key not in row and key in m}
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


def read(path: Path) -> list[Row]:
    """Read the rows that are there."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{**row, "seed": int(row["seed"]), "solved": row["solved"] == "True"} for row in csv.DictReader(file)]


def write(path: Path, rows: list[Row], order: list[str]) -> None:
    """Write rows in the order of problems and seeds."""
    rows = sorted(rows, key=lambda row: (order.index(row["problem"]), row["seed"]))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure(summary: str | None, classes: Makers, results: Path) -> int:
    """Solve what the command line asks for; the table is written after every solve."""
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor seconds for each (60)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="keep the lines that are there")
    parser.add_argument("-o", "--output", type=Path, default=results)
    given = parser.parse_args()
    output = given.output
    makers = {name: (kind, make) for kind, problems in classes.items() for name, make in problems.items()}
    rows = [row for row in read(output) if row["problem"] in makers]
    for seed in range(given.seeds):
        for name in given.problems or makers:
            kind, make = makers[name]
            there = [row for row in rows if row["problem"] == name]
            drawn = not there or str(there[0]["seeded"]) == "True"
            if (seed and not drawn) or (given.resume and any(row["seed"] == seed for row in there)):
                continue
            row = run(kind, make(name), seed, given.seconds)
            rows = [one for one in rows if (one["problem"], one["seed"]) != (name, seed)] + [row]
            print(
                *(
                    f"{key} {row.get(key)}"
                    for key in ("problem", "seed", "error", "trust", "cpu_seconds", "stop_reason")
                )
            )
            sys.stdout.flush()
            write(output, rows, list(makers))
    print(f"{sum(row['solved'] for row in rows)} of {len(rows)} solved to {SOLVED}")
    return 0


if __name__ == "__main__":
    sys.exit(measure(__doc__, CLASSES, RESULTS / "pde_own.csv"))
