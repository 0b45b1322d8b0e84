"""Whether solutions are believed when they should be, and only then: writes results/solution_trust.csv.

    python benchmarks/solution_trust.py [PROBLEM ...] [--seeds 3] [--seconds 60] [--resume]

Seconds are those of the processor, so that a machine with other work gives the same table.

The catalogue's problems and those of `pde_open` that have no single solution, by the default recipe; those outside the
catalogue are in `pde_own.py`, with their verdicts. check_seconds is the processor time of the evidence. right says whether the
verdict may be given: not "converged" beside an error above 1 % or where there are other solutions; "converged" where there is
one and the error is at most 1e-4.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import pde_open
from cpikan.learning import solver
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.trust.assess import assess
from cpikan.physics.catalogue import problem as named
from cpikan.physics.catalogue import problems
from cpikan.physics.problem import Problem

RESULTS = Path(__file__).parent / "results" / "solution_trust.csv"
COLUMNS = (
    *("group", "problem", "seed", "relative_l2", "trust", "right", "believed_wrong", "small_error", "believed_small"),
    *("seconds", "check_seconds", "stop_reason", "trust_reason"),
)
WRONG, SMALL = 1e-2, 1e-4


_CHECKS: list[float] = []  # processor seconds of every check


def timed(*given: Any) -> Any:
    """Check a solution, and note what that took."""
    begun = time.process_time()
    found = assess(*given)
    _CHECKS.append(time.process_time() - begun)
    return found


def cases() -> Iterator[tuple[str, str, Callable[[], Problem]]]:
    """Give groups, names and makers."""
    for name in problems():
        yield "catalogue", name, partial(named, name)
    for name, make in pde_open.PROBLEMS.items():
        yield "open", name, make


def line(group: str, make: Callable[[], Problem], seed: int, seconds: float) -> list[Any]:
    """Solve once and compare the verdict with the error."""
    found = solve(make(), seed=seed, settings=SolveSettings(seconds=seconds, clock="processor"))
    error, believed = found.metrics["relative_l2"], found.trust == "converged"
    wrong = believed and (group == "open" or error > WRONG)
    small = group != "open" and error <= SMALL
    return [
        *(group, found.problem.name, seed, f"{error:.3g}", found.trust, int(not wrong and (believed or not small))),
        *(int(wrong), int(small), int(small and believed), f"{found.metrics['seconds']:.3g}", f"{_CHECKS[-1]:.3g}"),
        *(found.stop_reason.name.lower(), found.trust_reason),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--resume", action="store_true", help="keep the lines that are there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    solver.assess = timed
    kept: set[tuple[str, str]] = set()
    if options.resume and RESULTS.exists():
        with open(RESULTS, newline="", encoding="utf-8") as file:
            kept = {(row["problem"], row["seed"]) for row in csv.DictReader(file)}
    with open(RESULTS, "a" if kept else "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if not kept:
            writer.writerow(COLUMNS)
        for seed in range(options.seeds):
            for group, name, make in cases():
                if (name, str(seed)) in kept or (options.problems and name not in options.problems):
                    continue
                writer.writerow(line(group, make, seed, options.seconds))
                file.flush()


if __name__ == "__main__":
    main()
