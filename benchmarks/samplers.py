"""What samplers are worth: ``python benchmarks/samplers.py``, results/samplers.csv.

``volumes``: the relative error (root mean square of six draws) of the mean of a smooth function with a step, by 1024 points of
five densities in one to five dimensions, weighted by volumes of neighbours, of kernels, or not at all. ``front``: the relative
L2 error of a network of 217 parameters after 60 steps of Levenberg-Marquardt on u = tanh(10 x) cos y, seven starts, by sampler
and number of points. Ten minutes on one core; ``--only NAME`` runs one of the two, or draws
docs/images/samplers.png (``picture``): points over residuals.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.objective import make_objective
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.kinds import make_sampler
from cpikan.learning.samplers.points import RULES, Points, unit_points
from cpikan.learning.samplers.sampler import Sampler
from cpikan.learning.samplers.volumes import ESTIMATES, volumes
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

RESULTS = Path(__file__).resolve().parent / "results" / "samplers.csv"
PICTURE = RESULTS.parents[2] / "docs" / "images" / "samplers.png"
COUNT, STEPS, EVERY = 1024, 60, 10
Array = NDArray[np.float64]


def draw(density: str, axes: int, seed: int) -> Array:
    """Draw points of the unit cube with a density that is known by its name."""
    random = np.random.default_rng(seed)
    unit = random.random((COUNT, axes))
    if density == "arcsine":
        return np.asarray(0.5 * (1 - np.cos(np.pi * unit)))
    if density == "edge":
        unit[:, 0] **= 3
    if density == "front":
        near = random.random(COUNT) < 0.7
        unit[near, 0] = np.clip(0.5 + 0.05 * random.standard_normal(int(near.sum())), 0, 1)
    return unit


def integrand(unit: Array) -> Array:
    """Evaluate a function with a dip of width 0.1 in the middle of the first axis."""
    smooth = np.exp(unit.mean(axis=1)) * np.cos(3 * unit[:, 0])
    return np.asarray(smooth + np.tanh(10 * (unit[:, 0] - 0.5)) ** 2)


def volume_rows() -> Iterator[dict[str, Any]]:
    """Measure weighted and plain means."""
    for axes in (1, 2, 3, 5):
        region = box([0.0] * axes, [1.0] * axes, "abcde"[:axes])
        truth = integrand(unit_points(2**20, axes, "sobol", 1)).mean()
        for density in ("even", "arcsine", "edge", "front"):
            missed: dict[str, list[float]] = {}
            for seed in range(6):
                unit = draw(density, axes, seed)
                shares = {name: volumes(region, unit, name) for name in ESTIMATES} | {"none": np.full(COUNT, 1 / COUNT)}
                for name, share in shares.items():
                    missed.setdefault(name, []).append(share @ integrand(unit) / truth - 1)
            for name, errors in missed.items():
                row = {"part": "volumes", "case": f"{density}, {axes} axes", "sampler": name, "points": COUNT}
                yield {**row, "error": float(np.sqrt(np.mean(np.square(errors))))}


def front() -> Problem:
    """Pose Poisson's equation for tanh(10 x) cos y on a square."""

    def exact(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(10 * x[..., 0]) * torch.cos(x[..., 1])

    def residual(u: Any, x: torch.Tensor) -> torch.Tensor:
        t = torch.tanh(10 * x[..., 0])
        load = (200 * t * (1 - t * t) + t) * torch.cos(x[..., 1])
        return torch.as_tensor(0.1 * (u.second[..., 0, :].sum(-1) + load))

    return Problem("front", box([-1, -1], [1, 1]), residual, [dirichlet(exact)], exact=exact)


def front_rows() -> Iterator[dict[str, Any]]:
    """Measure what points do to the error of a network."""
    posed, recipe = front(), Recipe("lm", "", (Levenberg(STEPS),))
    for count in (120, 240):
        for name in ("sobol", "random", "chebyshev", "rad", "rad-unbiased", "r3", "quantile", "volume"):
            errors = []
            for seed in range(7):
                rule = name if name in RULES else "chebyshev" if name == "volume" else "sobol"
                sampler: Sampler = Points(count, 80, rule, seed)
                if name not in RULES:
                    sampler = make_sampler(name, Points(count, 80, rule, seed), None if name == "volume" else EVERY)
                field = ScaledCPIKAN([2, 8, 1], [10, 6], (posed.region.lower, posed.region.upper), start=Start(seed))
                settings = SolveSettings(1e4, sampler, steps=STEPS)
                errors.append(solve(posed, field, recipe, settings=settings).metrics["relative_l2"])
            yield {"part": "front", "case": "front", "sampler": name, "points": count, "error": median(errors)}


def picture() -> None:
    """Draw where samplers put their points once a network has begun to bend at the front."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    posed, recipe = front(), Recipe("lm", "", (Levenberg(8),))
    domain = (posed.region.lower, posed.region.upper)
    field = ScaledCPIKAN([2, 8, 1], [10, 6], domain, start=Start(0))
    solve(posed, field, recipe, settings=SolveSettings(1e4, Points(240, 80, "sobol", 0), steps=8))
    ticks = torch.linspace(-1, 1, 121, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1).reshape(-1, 2)
    size = posed.residuals(field.jet(grid), grid).detach().abs().reshape(121, 121).numpy()
    figure, panels = plt.subplots(2, 3, figsize=(10, 7), sharex=True, sharey=True)
    for axes, name in zip(panels.flat, ("sobol", "rad", "rar-g", "r3", "quantile", "chebyshev"), strict=True):
        rule = name if name in RULES else "sobol"
        sampler: Sampler = Points(240, 80, rule, 0)
        if name not in RULES:
            sampler = make_sampler(name, Points(240, 80, rule, 0), EVERY)
        sets, state = sampler.init(posed)
        objective = make_objective(posed, sets)
        if name not in RULES:
            objective, _ = sampler.update(posed, objective, field, state)
        axes.imshow(size, extent=(-1, 1, -1, 1), origin="lower", cmap="Greys", vmin=0, vmax=np.quantile(size, 0.99))
        x = objective.sets["equation"].points.numpy()
        axes.plot(x[:, 0], x[:, 1], ".", color="#c8553d", markersize=3)
        axes.set_title(name, fontsize=10)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Run the parts and write the table."""
    parts = {"volumes": volume_rows, "front": front_rows}
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=[*parts, "picture"])
    only = parser.parse_args().only
    if only in (None, "picture"):
        picture()
    if only == "picture":
        return
    kept = []
    if only and RESULTS.exists():
        with RESULTS.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["part"] != only]
    rows: list[dict[str, Any]] = []
    for name, rows_of in parts.items():
        for row in rows_of() if only in (None, name) else ():
            rows.append({**row, "error": f"{row['error']:.2e}"})
            print(*rows[-1].values(), flush=True)
    rows = sorted([*kept, *rows], key=lambda row: list(parts)[::-1].index(row["part"]))
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["part", "case", "sampler", "points", "error"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
