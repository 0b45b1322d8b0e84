"""Stated standard errors of unknown coefficients against repeated noise: writes results/coefficient_errors.csv.

    python benchmarks/coefficient_errors.py [--draws 60]

The 400 values of an inverse problem of the catalogue get noise anew in every draw; the network is grown to the same size in all
of them, so that nothing depends on the speed of the machine. z is the error of a coefficient in units of its standard error.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cpikan.learning.recipes import Recipe
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.strategies.grow import Grow
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem, measured

RESULTS = Path(__file__).parent / "results" / "coefficient_errors.csv"
COLUMNS = ("problem", "noise", "draw", "coefficient", "true", "standard_error", "z", "within_95", "trust")
CASES = (("diffusion-inverse", 0.01), ("diffusion-inverse", 0.05), ("helmholtz-inverse", 0.01))
RECIPE = Recipe("grow to 500", "", (), own=Grow(parameters=500))


def noisy(name: str, noise: float, draw: int) -> Problem:
    """Give the values of a problem noise relative to their RMS, weighed as the catalogue does."""
    clean = problem(name)
    *known, values = clean.conditions
    assert clean.exact is not None
    assert values.at is not None
    truth = clean.exact(values.at)[..., 0]
    drawn = torch.from_numpy(np.random.default_rng([draw, 77]).standard_normal(len(truth)))
    seen = truth + noise * float(truth.square().mean().sqrt()) * drawn
    return replace(clean, conditions=[*known, measured(values.at, seen, weight=0.3)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, noise in CASES:
            for draw in range(options.draws):
                found = solve(noisy(name, noise, draw), recipe=RECIPE, settings=SolveSettings(seconds=1e4))
                value, true, error = (
                    found.metrics[key][0] for key in ("coefficients", "coefficients_true", "standard_errors")
                )
                z = (value - true) / error
                writer.writerow(
                    [
                        name,
                        noise,
                        draw,
                        f"{value:.8g}",
                        true,
                        f"{error:.4g}",
                        f"{z:.4g}",
                        int(abs(z) < 1.96),
                        found.trust,
                    ]
                )
                file.flush()


if __name__ == "__main__":
    main()
