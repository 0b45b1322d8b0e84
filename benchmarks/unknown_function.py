"""A coefficient that is a function of place: a(x, y) of -div(a grad u) = f from values of u at random points.

    python benchmarks/unknown_function.py [--values 400] [--noise 0 0.01] [--seeds 0] [--seconds 60]

u = sin(pi x) sin(pi y) vanishes on the walls of the unit square; a is a second output of the field, of which nothing is given:
neither a value nor a condition. One core, float64, the default recipe. results/unknown_function.csv has a line a solve: the
relative L2 errors of a and of u on an even grid, the trust, processor seconds. The seed draws the values' places and noise too.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.learning.solver import SolveSettings, evaluate, solve, test_points
from cpikan.physics.problem import Problem, dirichlet, measured
from cpikan.physics.regions import box

CSV = Path(__file__).parent / "results" / "unknown_function.csv"
FIELDS = ("coefficient", "values", "noise", "seed", "a_relative_l2", "u_relative_l2", "trust", "processor_s")


def waves(x: Tensor) -> Tensor:
    """A coefficient between 0.5 and 1.5."""
    return 1 + 0.5 * torch.sin(2 * math.pi * x[..., 0]) * torch.sin(2 * math.pi * x[..., 1])


def slope(x: Tensor) -> Tensor:
    """A coefficient between 1 and e."""
    return torch.exp(torch.sin(math.pi * x[..., 0]) * x[..., 1])


def solution(x: Tensor) -> Tensor:
    return torch.sin(math.pi * x).prod(dim=-1)


def right_side(a: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute -div(a grad u) at points (B, 2) by automatic differentiation."""
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        flux = a(at)[:, None] * torch.autograd.grad(solution(at).sum(), at, create_graph=True)[0]
        parts = [torch.autograd.grad(flux[:, axis].sum(), at, retain_graph=True)[0][:, axis] for axis in (0, 1)]
    return -(parts[0] + parts[1]).detach()


def posed(a: Callable[[Tensor], Tensor], values: int, noise: float, seed: int) -> Problem:
    """Ask for a, from so many values of u with noise relative to their root mean square."""
    region, random = box([0, 0], [1, 1]), np.random.default_rng([seed, 13])
    points = torch.from_numpy(region.inside(random.random((values, 2)), clustered=False))
    clean = solution(points)
    data = clean + noise * float(clean.square().mean().sqrt()) * torch.from_numpy(random.standard_normal(values))

    def residual(u: Jet, x: Tensor) -> Tensor:
        along = (u.gradient[..., 0, :] * u.gradient[..., 1, :]).sum(-1)
        return along + u.value[..., 1] * u.second[..., 0, :].sum(-1) + right_side(a, x)

    def exact(x: Tensor) -> Tensor:
        return torch.stack([solution(x), a(x)], dim=-1)

    conditions = [dirichlet(0.0, output=0), measured(points, data, weight=0.3 if noise else 1.0)]
    return Problem("unknown-function", region, residual, conditions, exact, outputs=2)


def row(name: str, values: int, noise: float, seed: int, seconds: float) -> dict[str, object]:
    """Solve once."""
    problem, begun = posed(COEFFICIENTS[name], values, noise, seed), time.process_time()
    found = solve(problem, seed=seed, settings=SolveSettings(seconds=seconds, clock="processor"))
    took, x = time.process_time() - begun, test_points(problem)
    truth, here = problem.reference_values(x), evaluate(found.field, x)
    u, a = ((here - truth).norm(dim=0) / truth.norm(dim=0)).tolist()
    return {
        "coefficient": name,
        "values": values,
        "noise": noise,
        "seed": seed,
        "a_relative_l2": f"{a:.3g}",
        "u_relative_l2": f"{u:.3g}",
        "trust": found.trust,
        "processor_s": f"{took:.1f}",
    }


COEFFICIENTS = {"waves": waves, "slope": slope}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coefficients", nargs="+", default=list(COEFFICIENTS))
    parser.add_argument("--values", type=int, default=400)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.01])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with given.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for name in given.coefficients:
            for noise in given.noise:
                for seed in given.seeds:
                    found = row(name, given.values, noise, seed, given.seconds)
                    print(found, flush=True)
                    writer.writerow(found)
                    file.flush()


if __name__ == "__main__":
    main()
