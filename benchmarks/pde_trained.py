"""Train two hidden layers on problems of the catalogue: errors of the recipe `trained` and of others, seed by seed.

    python benchmarks/pde_trained.py [--problems NAME ...] [--recipes NAME ...] [--seeds 0 1 2] [--seconds 60] [--add]
    python benchmarks/pde_trained.py --problems burgers allen-cahn --recipes windows --seconds 600 --add
    python benchmarks/pde_trained.py --problems helmholtz-2d-1-4 --seeds 0 --seconds 300 --trace --add
    python benchmarks/pde_trained.py --problems helmholtz-2d-1-4 --constraints symmetric --add
    python benchmarks/pde_trained.py --picture

One core, float64, `seconds` of the processor for each solve; --add keeps the lines that are there. results/pde_trained.csv
has a line a solve: the limit, the relative L2 error, processor seconds, steps, parameters, and what `cpikan.learning.trained`
says: the share of the output coefficients, and how much worse the drawn hidden layers are with the output layer alone solved
for. --trace adds the error on the way to results/pde_trained_trace.csv, on a grid of 61 points per axis; --picture draws it in
docs/images/training.png.
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
TRACE = CSV.with_name("pde_trained_trace.csv")
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "training.png"
PROBLEMS = ("poisson-2d", "helmholtz-2d-1-4", "poisson-3d-mixed", "poisson-5d", "kovasznay", "burgers", "allen-cahn")
FIELDS = (
    "problem", "recipe", "seed", "limit_s", "relative_l2", "processor_s", "steps", "parameters", "output_share",
    "frozen_over_found", "trained", "trust",
)  # fmt: skip
TRACE_FIELDS = ("problem", "recipe", "seed", "limit_s", "parameters", "processor_s", "steps", "relative_l2")
_EVERY = 2  # calls of the callback, which comes every ten steps
Line = dict[str, object]


def poisson_5d() -> Problem:
    """Pose the sum of five cosines."""

    def exact(x: Tensor) -> Tensor:
        return torch.cos(math.pi * x).sum(dim=-1)

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0] + math.pi**2 * exact(x)

    region = box([0.0] * 5, [1.0] * 5, ["a", "b", "c", "d", "e"])
    return Problem("poisson-5d", region, residual, [dirichlet(exact)], exact, "exact formula", second="laplacian")


class Watch:
    """Append the error on the way to the CSV, on a coarse grid."""

    def __init__(self, problem: Problem, line: Line) -> None:
        bounds = zip(problem.region.lower, problem.region.upper, strict=True)
        self._points = torch.cartesian_prod(*[torch.linspace(*ends, 61, dtype=torch.float64) for ends in bounds])
        self._truth = problem.reference_values(self._points)
        self._line, self._calls = line, 0

    def __call__(self, field: torch.nn.Module, record: dict[str, float]) -> None:
        self._calls += 1
        if self._calls % _EVERY:
            return
        with torch.no_grad():
            error = float((field(self._points) - self._truth).norm() / self._truth.norm())
        seen = {"processor_s": f"{record['seconds']:.4g}", "steps": record["iteration"], "relative_l2": f"{error:.3g}"}
        parameters = sum(p.numel() for p in field.parameters())
        new = not TRACE.exists()
        with TRACE.open("a", newline="") as file:
            writer = csv.DictWriter(file, TRACE_FIELDS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(self._line | {"parameters": parameters} | seen)


def posed_as(name: str) -> Problem:
    """Pose a problem of the catalogue, or the sum of five cosines."""
    return poisson_5d() if name == "poisson-5d" else named(name)


def row(
    problem: Problem, recipe: str, seed: int, seconds: float, constraints: str | None = None, watch: Watch | None = None
) -> Line:
    """Solve once."""
    begun = time.process_time()
    constraints = "penalty" if problem.name == "poisson-5d" else constraints
    settings = SolveSettings(seconds=seconds, clock="processor", constraints=constraints, callback=watch)
    found = solve(problem, recipe=recipe, seed=seed, settings=settings)
    took, metrics = time.process_time() - begun, found.metrics
    return {
        "problem": problem.name,
        "recipe": recipe if constraints in (None, "penalty") else f"{recipe}, {constraints}",
        "seed": seed,
        "limit_s": f"{seconds:g}",
        "relative_l2": f"{metrics['relative_l2']:.3g}",
        "processor_s": f"{took:.1f}",
        "steps": metrics["iterations"],
        "parameters": metrics["parameters"],
        "output_share": f"{metrics['output_share']:.3f}" if "output_share" in metrics else "",
        "frozen_over_found": f"{metrics['frozen_over_found']:.3g}" if "frozen_over_found" in metrics else "",
        "trained": metrics.get("trained", ""),
        "trust": found.trust,
    }


def picture() -> None:
    """Draw the errors on the way."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with TRACE.open() as file:
        lines = list(csv.DictReader(file))
    name = lines[0]["problem"]
    with CSV.open() as file:
        minute = [line for line in csv.DictReader(file) if line["problem"] == name and line["recipe"] == "trained"]
    figure, axes = plt.subplots(figsize=(7, 4))
    label = f"{lines[0]['limit_s']} s allowed: {lines[0]['parameters']} parameters"
    places = [[float(line[key]) for line in lines] for key in ("processor_s", "relative_l2")]
    axes.semilogy(*places, color="#2b6777", label=label)
    short = [line for line in minute if line["limit_s"] == "60"]
    places = [[float(line[key]) for line in short] for key in ("processor_s", "relative_l2")]
    axes.semilogy(
        *places, "o", color="#c8553d", label=f"60 s allowed, {len(short)} seeds: {short[0]['parameters']} parameters"
    )
    axes.set(xlabel="processor seconds", ylabel="relative L2 error", title=name)
    axes.grid(alpha=0.25)
    axes.legend()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--recipes", nargs="+", default=["trained"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--constraints")
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--picture", action="store_true")
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.picture:
        picture()
        return
    with given.csv.open("a" if given.add else "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not given.add:
            writer.writeheader()
        for problem in map(posed_as, given.problems):
            for recipe in given.recipes:
                for seed in given.seeds:
                    line: Line = {
                        "problem": problem.name,
                        "recipe": recipe,
                        "seed": seed,
                        "limit_s": f"{given.seconds:g}",
                    }
                    watch = Watch(problem, line) if given.trace else None
                    found = row(problem, recipe, seed, given.seconds, given.constraints, watch)
                    print(found, flush=True)
                    writer.writerow(found)
                    file.flush()


if __name__ == "__main__":
    main()
