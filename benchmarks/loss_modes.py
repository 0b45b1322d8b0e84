"""What a network should be trained by: ``python benchmarks/loss_modes.py``, results/loss_modes.csv, docs/images/loss_modes.png.

The same network ([d, 8, 8, 1], degree 5, values at the ends held exactly), equal processor seconds, three seeds: residuals,
weak residuals, residuals with their slopes (by Levenberg-Marquardt), and residuals and energy (by self-scaled Broyden, since
an energy has no residuals). Problems: poisson-1d, poisson-2d, and -u'' = f with a jump in f. Errors of the solution and of its
slopes, relative L2; ``steps_to_1e-4``: steps until the held-out residual of the equation is that share of that of u = 0 (empty
where it is not reached, or where the mode judges by something else). Five minutes of one core.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch
from torch import Tensor

from cpikan.fields.constrained import function_jet
from cpikan.fields.protocol import Jet
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.recipes import RECIPES, Recipe
from cpikan.learning.solver import SolveSettings, solve, test_points
from cpikan.physics.catalogue import problem
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

HERE = Path(__file__).resolve().parent
RESULTS, PICTURE = HERE / "results" / "loss_modes.csv", HERE.parent / "docs" / "images" / "loss_modes.png"
SEEDS, SECONDS, SHARE, JUMP = (0, 1, 2), 6.0, 1e-4, 0.37
NEWTON: Recipe = replace(RECIPES["trained"], hidden=(8, 8))
BROYDEN: Recipe = replace(
    RECIPES["ssbroyden"], hidden=(8, 8), degree=5, rows=2.5, exact_values=True, balancer=MEAN_SQUARES
)
MODES = (
    ("strong", "levenberg-marquardt"),
    ("weak", "levenberg-marquardt"),
    ("sobolev", "levenberg-marquardt"),
    ("strong", "ssbroyden"),
    ("ritz", "ssbroyden"),
)
FIELDS = (
    "problem", "mode", "method", "seed", "relative_l2", "slopes_l2", "heldout_residual", "steps", "steps_to_1e-4",
    "processor_s",
)  # fmt: skip


def rough() -> Problem:
    """Pose u'' = f on [0, 1] with f = 30 below a place and -20 above it: u is twice differentiable but for that place."""

    def load(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] < JUMP, 30.0, -20.0).double()

    def bend(x: Tensor) -> Tensor:  # u'' = load, u(0) = u'(0) = 0
        beyond = (x[..., 0] - JUMP).clamp(min=0)
        return 15.0 * x[..., 0] ** 2 - 25.0 * beyond**2

    def exact(x: Tensor) -> Tensor:
        return bend(x) - x[..., 0] * bend(torch.ones(1, 1, dtype=torch.float64))

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, 0] - load(x)

    return Problem("jump", box([0], [1]), residual, [dirichlet(0.0)], exact)


def slopes_error(one: Problem, field: Any) -> float:
    """Compute the relative L2 error of the gradient on an even grid."""
    x = test_points(one)
    ansatz = with_exact_conditions(one)[1]
    assert one.exact is not None
    assert ansatz is not None
    exact = one.exact
    truth = function_jet(lambda points: exact(points)[:, None], x, "none").gradient
    with torch.no_grad():
        found = ansatz.jet(field.jet(x, "none"), x, "none").gradient
    return float((found - truth).norm() / truth.norm())


def row(one: Problem, mode: str, method: str, seed: int, seconds: float) -> dict[str, object]:
    """Solve once."""
    recipe = NEWTON if method == "levenberg-marquardt" else BROYDEN
    begun = time.process_time()
    settings = SolveSettings(seconds=seconds, clock="processor", loss_mode=mode)
    found = solve(one, None, recipe, seed=seed, settings=settings)
    took, metrics, records = time.process_time() - begun, found.metrics, found.history.records
    level = SHARE * of_zero(one)
    reached = [r["iteration"] for r in records if math.sqrt(2 * r["heldout"]) <= level]
    return {
        "problem": one.name,
        "mode": mode,
        "method": method,
        "seed": seed,
        "relative_l2": f"{metrics['relative_l2']:.3g}",
        "slopes_l2": f"{slopes_error(one, network(found)):.3g}",
        "heldout_residual": f"{metrics['heldout_residual']:.3g}",
        "steps": metrics["iterations"],
        "steps_to_1e-4": reached[0] if reached and mode in ("strong", "sobolev") else "",
        "processor_s": f"{took:.1f}",
    }


def of_zero(one: Problem) -> float:
    """Compute the root mean square of the residual of u = 0."""
    x = test_points(one)
    zero = Jet(*(x.new_zeros(len(x), 1, *tail) for tail in ((), (one.dimension,), (one.dimension,))))
    return float(one.interior(zero, x)["equation"].square().mean().sqrt())


def network(found: Any) -> Any:
    """Give the network behind the form of the solution."""
    return getattr(found.field, "network", found.field)


def draw(path: Path) -> None:
    """Draw the errors by problem and mode, a dot a seed, a line at the median."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys(row["problem"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(10, 3.4), sharey=False, constrained_layout=True)
    for axis, name in zip(axes, names, strict=True):
        for place, (mode, method) in enumerate(MODES):
            mine = [r for r in rows if (r["problem"], r["mode"], r["method"]) == (name, mode, method)]
            for what, colour, shift in (("relative_l2", "tab:blue", -0.12), ("slopes_l2", "tab:orange", 0.12)):
                values = sorted(float(r[what]) for r in mine)
                axis.plot([place + shift] * len(values), values, "o", color=colour, markersize=4, alpha=0.7)
                axis.plot([place + shift - 0.1, place + shift + 0.1], [values[len(values) // 2]] * 2, color=colour)
        labels = [f"{mode}\n{'LM' if 'lev' in method else 'SSB'}" for mode, method in MODES]
        axis.set_xticks(range(len(MODES)), labels, fontsize=8)
        axis.set_yscale("log")
        axis.set_title(name)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("relative L2 error")
    axes[-1].plot([], [], "o", color="tab:blue", label="u")
    axes[-1].plot([], [], "o", color="tab:orange", label="slopes of u")
    axes[-1].legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--draw", action="store_true", help="the picture alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.draw:
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            for mode, method in MODES:  # what is compiled and imported once is nobody's
                row(problem("poisson-1d"), mode, method, 0, 1.0)
            for one in (problem("poisson-1d"), problem("poisson-2d"), rough()):
                for mode, method in MODES:
                    for seed in given.seeds:
                        found = row(one, mode, method, seed, given.seconds)
                        print(found, flush=True)
                        writer.writerow(found)
                        file.flush()
    draw(PICTURE)


if __name__ == "__main__":
    main()
