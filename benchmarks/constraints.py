"""How conditions are best held while a network is trained: by the form of the solution, by squares, or by multipliers.

    python benchmarks/constraints.py [--seconds 20] [--seeds 0 1 2] [--picture]

The recipe `trained` ([2, 12, 12, 1] nodes of degree 5, geodesic Levenberg-Marquardt) on two problems with values on all
walls; squares and multipliers begin with the weights of `kernel-traces`. One core, float64, `seconds` of processor time a
solve: the clock of a solve is that of the process, so that others on the machine do not matter. results/constraints.csv has
a line a solve. `--picture` draws docs/images/constraints.png from it, with the distances of four regions.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch

from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.recipes import RECIPES
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.distances import distance_to
from cpikan.physics.outline import Outline, circle, difference, outline_of, wafer
from cpikan.physics.regions import LShape, box

CSV = Path(__file__).parent / "results" / "constraints.csv"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "constraints.png"
PROBLEMS = ("poisson-2d", "helmholtz-2d-1-4")
WAYS = ("exact", "penalty", "augmented-lagrangian")
FIELDS = (
    "problem", "constraints", "seed", "relative_l2", "boundary_violation", "processor_s", "steps", "parameters",
)  # fmt: skip


def row(problem: str, constraints: str, seed: int, seconds: float) -> dict[str, object]:
    """Solve once."""
    recipe = RECIPES["trained"]
    if constraints != "exact":
        recipe = replace(recipe, balancer=KERNEL_TRACES)
    begun = time.process_time()
    settings = SolveSettings(seconds=seconds, constraints=constraints, clock="processor")
    metrics = solve(problem, recipe=recipe, seed=seed, settings=settings).metrics
    return {
        "problem": problem,
        "constraints": constraints,
        "seed": seed,
        "relative_l2": f"{metrics['relative_l2']:.3g}",
        "boundary_violation": f"{metrics['boundary_violation']:.3g}",
        "processor_s": f"{time.process_time() - begun:.1f}",
        "steps": metrics["iterations"],
        "parameters": metrics["parameters"],
    }


def measure(seeds: list[int], seconds: float) -> None:
    """Write the CSV, seed by seed."""
    with CSV.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for seed in seeds:
            for problem in PROBLEMS:
                for way in WAYS:
                    found = row(problem, way, seed, seconds)
                    print(found, flush=True)
                    writer.writerow(found)
                    file.flush()


def draw() -> None:
    """Draw errors and violations by way, and distances of regions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 6, figsize=(15, 3.3), width_ratios=[1.5, 1.5, 1, 1, 1, 1])
    with CSV.open(newline="") as file:
        lines = list(csv.DictReader(file))
    for axis, problem in zip(axes, PROBLEMS, strict=False):
        for colour, (column, label) in zip(
            ("C0", "C3"),
            (("relative_l2", "relative L2 error"), ("boundary_violation", "largest violation")),
            strict=True,
        ):
            points = [
                (WAYS.index(one["constraints"]), max(float(one[column]), 1e-17))
                for one in lines
                if one["problem"] == problem
            ]
            axis.semilogy(*np.array(points).T, "o", color=colour, alpha=0.7, label=label)
        axis.set_xticks(range(len(WAYS)), ["exact", "penalty", "augmented\nLagrangian"])
        axis.set_xlim(-0.5, 2.5)
        axis.set_title(problem, fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    regions: dict[str, Outline] = {
        "wafer with a notch": wafer(2.0, 0.25),
        "L-shape": outline_of(LShape()),
        "plate with a hole": difference(box([0, 0], [2, 1.4]), circle((0.8, 0.7), 0.3)),
        "disc with a bite": difference(circle((0, 0), 1.0), circle((0.9, 0), 0.6)),
    }
    for axis, (name, region) in zip(axes[2:], regions.items(), strict=True):
        _distance(axis, name, region)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def _distance(axis: Any, name: str, region: Outline) -> None:
    low, high = np.asarray(region.lower), np.asarray(region.upper)
    grid = np.stack(np.meshgrid(*(np.linspace(a, b, 240) for a, b in zip(low, high, strict=True))), axis=-1)
    flat = grid.reshape(-1, 2)
    with torch.no_grad():
        found = distance_to(region)(torch.from_numpy(flat)).numpy()
    shown = np.where(region.contains(flat), found, np.nan).reshape(grid.shape[:-1])
    axis.contourf(grid[..., 0], grid[..., 1], shown, 14, cmap="viridis")
    for _, edge in region.edges:
        axis.plot(*edge.at(np.linspace(0, 1, 200)).T, "k", linewidth=1)
    rim = 0.03 * (high - low)  # else the frame cuts the outlines
    axis.set(aspect="equal", xlim=(low[0] - rim[0], high[0] + rim[0]), ylim=(low[1] - rim[1], high[1] + rim[1]))
    axis.set_axis_off()
    axis.set_title(name, fontsize=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--picture", action="store_true", help="draw from the CSV instead of measuring")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.picture:
        draw()
    else:
        measure(given.seeds, given.seconds)


if __name__ == "__main__":
    main()
