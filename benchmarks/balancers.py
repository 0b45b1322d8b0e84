"""What weights and directions are worth: ``python benchmarks/balancers.py [--seconds 3] [--seeds 1] [--resume]``.

A network [2, 8, 8, 1] of degree 4 by Adam, conditions held by squares, equal processor seconds, 200 points inside and
80 on the boundary; `poisson-2d` (its boundary against an equation whose residuals are twenty times as large) and
`reaction-diffusion` (a front that moves). Waves as those of `helmholtz-2d-1-4` are beyond Adam in that time with any
weights. results/balancers.csv has the relative L2 error of each, docs/images/balancers.png shows them.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch

import cpikan
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.physics.catalogue import problem as problem_named

RESULTS = Path(__file__).parent / "results" / "balancers.csv"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "balancers.png"
PROBLEMS = ("poisson-2d", "reaction-diffusion")
BALANCERS = (
    *("mean-squares", "kernel-traces", "annealing", "gradnorm", "relobralo", "softadapt", "boundary-first"),
    *("self-adaptive", "residual-attention", "variational-attention", "causal"),
)
DIRECTIONS = ("config", "dcgd", "pcgrad")
FIELDS = ("problem", "kind", "name", "seed", "relative_l2", "steps", "processor_s")
Line = dict[str, object]


def line(name: str, kind: str, part: str, seed: int, seconds: float) -> Line:
    """Train once; a direction goes with the balancer of the recipe."""
    problem = problem_named(name)
    domain = (problem.region.lower, problem.region.upper)
    field = ScaledCPIKAN([problem.dimension, 8, 8, problem.outputs], 4, domain, start=Start(seed))
    points = cpikan.Points(200, 80, "sobol", seed)
    settings = cpikan.SolveSettings(seconds, points, clock="processor", constraints="penalty", **{kind: part})
    found = cpikan.solve(problem, field, "adam", seed=seed, settings=settings)
    figures = {"relative_l2": f"{found.metrics['relative_l2']:.3g}", "steps": found.metrics["iterations"]}
    return {"problem": name, "kind": kind, "name": part, "seed": seed} | figures | {"processor_s": f"{seconds:g}"}


def picture(rows: list[Line]) -> None:
    """Draw a dot for every start, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [*BALANCERS, *DIRECTIONS]
    figure, panels = plt.subplots(1, len(PROBLEMS), figsize=(11, 5), sharey=True)
    for axes, problem in zip(panels, PROBLEMS, strict=True):
        for row in rows:
            if row["problem"] == problem:
                colour = "#c8553d" if row["kind"] == "direction" else "#2b6777"
                place = len(names) - 1 - names.index(str(row["name"]))
                axes.plot(float(str(row["relative_l2"])), place, "o", color=colour, alpha=0.75, markersize=6)
        axes.set_xscale("log")
        axes.set_title(problem, fontsize=11)
        axes.set_xlabel("relative L2 error")
        axes.grid(axis="y", alpha=0.25)
    panels[0].set_yticks(range(len(names)), names[::-1])
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="keep the lines that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Line] = list(csv.DictReader(RESULTS.open())) if given.resume and RESULTS.exists() else []
    there = {tuple(str(row[key]) for key in FIELDS[:4]) for row in rows}
    parts = [("balancer", name) for name in BALANCERS] + [("direction", name) for name in DIRECTIONS]
    line(PROBLEMS[0], *parts[0], 0, 1.0)  # what is loaded at first use is not timed
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        for seed in range(given.seeds):
            for problem in PROBLEMS:
                for kind, name in parts:
                    evolves = problem == "reaction-diffusion"
                    if (problem, kind, name, str(seed)) in there or (name == "causal" and not evolves):
                        continue
                    rows.append(line(problem, kind, name, seed, given.seconds))
                    writer.writerow(rows[-1])
                    file.flush()
                    print(*rows[-1].values(), flush=True)
    picture(rows)


if __name__ == "__main__":
    main()
