"""Errors, seconds and the time to each error of the catalogue's problems, on one core: writes results/pde.csv.

    python benchmarks/pde.py [PROBLEM ...] [--seeds 3] [--fast-seeds 20] [--seconds S] [--resume]

Every problem by the default recipe, at most as long as its target says (60 s where it has none). Beside it
  * recipes that never solve for the output layer, 10 s each, on Helmholtz's problems (networks of one hidden layer of 8 to
    12 nodes, the paper's of two of 8);
  * growing networks without the singular functions of the corner on the L ("plain basis");
  * one network with and without scaling of the domain on the diffusion problems, by one least-squares solve of its last
    layer ([2, 33, 1], degree 32) and by the paper's recipe;
  * Chebyshev collocation, a polynomial per axis, on every box, with more nodes where there are many waves.
Errors on the way are taken with the clock stopped whenever the held-out residual falls; s_1e-6 is the time at which the
best state's error was first below 1e-6. cpu_seconds is what the process used, a check of the wall clock on a machine that
is not idle.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.baseline import collocation_baseline
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.strategies.ridge_start import ridge_start
from cpikan.physics.catalogue import problem, problems
from pde_watch import TARGETS, TOLERANCES, WITHOUT_LAST_LAYER, Unscaled, points_at_once, watched

RESULTS = Path(__file__).parent / "results" / "pde.csv"
TIMES = tuple(f"s_{tolerance:.0e}".replace("e-0", "e-") for tolerance in TOLERANCES)
COLUMNS = (
    *("problem", "method", "seed", "relative_l2", "max_error", "seconds", "cpu_seconds", *TIMES, "target"),
    *("target_seconds", "within_10x", "iterations", "interior_points", "collocation_points", "parameters"),
    *("heldout_residual", "boundary_violation", "stop_reason", "coefficient", "coefficient_true"),
)
NONLINEAR = ("levenberg-marquardt", "varpro", "ssbroyden", "ssbfgs", "bfgs", "lbfgs", "soap", "paper")
WITHOUT = ("helmholtz-1d", "helmholtz-1d-k4pi", "helmholtz-2d-1-4")
DIFFUSION = ("diffusion", "diffusion-600")
MORE_NODES = ("helmholtz-2d-1-4", "helmholtz-2d-6-6", *DIFFUSION)
_FINE = 45  # nodes per axis where those of collocation in two dimensions, 33, do not resolve the solution
_SAME = (
    [33],
    [1, 32],
)  # hidden nodes and degrees of the networks with and without scaling: all polynomials of degree 32
_LONG = 60.0  # solves below this are repeated over --fast-seeds


@dataclass(frozen=True)
class Method:
    """A recipe under the name it has in the table, its time limit, and whether it makes no network of its own."""

    name: str
    recipe: str
    seconds: float
    field: str = ""
    target: tuple[float, float] | None = None

    def network(self, name: str, seed: int) -> Any:
        """The network that is given to the recipe, or None."""
        if not self.field:
            return None
        one = problem(name)
        hidden, degree = ([8, 8], 5) if self.recipe == "paper" else _SAME
        box = None if self.field == "unscaled" else (one.region.lower, one.region.upper)
        network = ScaledCPIKAN([one.dimension, *hidden, one.outputs], degree, box, start=Start(seed))
        if self.recipe != "paper":
            ridge_start(network, seed)
        return Unscaled(network) if self.field == "unscaled" else network


def methods(name: str, seconds: float | None) -> list[Method]:
    """What is measured on a problem."""
    from cpikan.learning.recipes import RECIPES

    target = TARGETS.get(name)
    limit = seconds or (60.0 if target is None else target[1])
    found = [Method("default", "default", limit, target=target)]
    if name in WITHOUT:
        each = min(limit, WITHOUT_LAST_LAYER[1])
        found += [Method(one, one, each, target=WITHOUT_LAST_LAYER) for one in NONLINEAR if one in RECIPES]
    if name == "poisson-lshape":
        found.append(Method("plain basis", "grow", limit, target=target))
    if name in DIFFUSION:
        for recipe in ("last-layer", "paper"):
            found += [Method(f"{field}, {recipe}", recipe, limit, field) for field in ("scaled", "unscaled")]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(problems()))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fast-seeds", type=int, default=0, help="seeds of solves under 60 s, where more than --seeds")
    parser.add_argument("--seconds", type=float, help="time limit instead of the target's")
    parser.add_argument("--methods", help="those whose name contains this alone")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there, add those that are not")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    there = read(given.output) if given.resume else []
    done = {(row["problem"], row["method"], row["seed"]) for row in there}
    solve("poisson-2d", settings=SolveSettings(seconds=5))  # imports and first calls are not timed
    with open(given.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(there)
        for name in given.problems:
            for row in rows(name, given, done):
                writer.writerow(row)
                file.flush()
                print(f"{name:34} {row['method']:22} {row['relative_l2']:9.2e} {row['seconds']:7.2f} s", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier run, none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows(name: str, given: argparse.Namespace, done: set[tuple[str, str, str]]) -> Iterator[dict[str, Any]]:
    """Everything that is measured on a problem, row by row."""
    for method in methods(name, given.seconds):
        if given.methods and given.methods not in method.name:
            continue
        count, seed = given.seeds, 0
        while seed < count:
            if (name, method.name, str(seed)) not in done:
                row = measured(name, method, seed)
                yield row
                if row["seconds"] < _LONG:
                    count = max(given.seeds, given.fast_seeds)
            elif given.fast_seeds:
                count = max(given.seeds, given.fast_seeds)
            seed += 1
    for label, nodes in (("collocation", None), (f"collocation, {_FINE} nodes", _FINE)):
        left_out = (name, label, "0") in done or (given.methods and given.methods not in label)
        if left_out or (nodes and name not in MORE_NODES):
            continue
        started = time.perf_counter()
        found = collocation_baseline(problem(name), nodes)
        if found is not None:
            seconds = time.perf_counter() - started
            extra = {"problem": name, "method": label, "seed": 0, "parameters": found["unknowns"]}
            yield plain({**found, **extra, "seconds": seconds})


def measured(name: str, method: Method, seed: int) -> dict[str, Any]:
    """One solve."""
    one = problem(name)
    with watched(one) as clock:
        settings = SolveSettings(seconds=method.seconds)
        solution = solve(one, method.network(name, seed), method.recipe, seed=seed, settings=settings)
        cpu_s = clock.cpu_s + time.process_time()
    found = solution.summary()
    error = found["relative_l2"]
    if "coefficients" in found:
        pairs = zip(found["coefficients"], found["coefficients_true"], strict=True)
        error = max(abs(a - b) / abs(b) for a, b in pairs)
    row = {**found, "method": method.name, "cpu_seconds": cpu_s, "interior_points": points_at_once(solution, clock.run)}
    row |= {column: clock.reached(tolerance) for column, tolerance in zip(TIMES, TOLERANCES, strict=True)}
    if method.target is not None:
        row |= {"target": method.target[0], "target_seconds": method.target[1]}
        row["within_10x"] = bool(math.isfinite(error) and error <= 10 * method.target[0])
    return plain(row)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers as they are written: four digits; none for what there is not."""
    out = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
    if "coefficients" in row:
        out["coefficient"] = float(f"{row['coefficients'][0]:.10g}")
        out["coefficient_true"] = row["coefficients_true"][0]
    return out


if __name__ == "__main__":
    sys.exit(main())
