"""What subdomains are good for: errors, jumps and time where one network resolves little, and growth with their number.

    python benchmarks/subdomains.py [CASE ...] [--picture]

Every CASE (all of `CASES` by default) is solved once on one core in float64 and replaces its line in results/subdomains.csv;
the clock of a solve is that of the process, so that others on the machine do not matter. `processor_s` is the solve without
imports, `peak_mib` the largest resident memory of the process. `--picture` draws docs/images/couplings.png and
subdomains.png.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.learning.solution import Solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.outline import Outline, circle, difference
from cpikan.physics.problem import Problem, dirichlet, interface, pinned
from cpikan.physics.region_quadrature import quadrature
from cpikan.physics.regions import box, disc

CSV = Path(__file__).parent / "results" / "subdomains.csv"
PICTURES = Path(__file__).parents[1] / "docs" / "images"
FIELDS = (
    "case", "problem", "grid", "coupling", "recipe", "relative_l2", "value_jump", "slope_jump", "processor_s", "peak_mib",
    "boxes", "parameters", "trust",
)  # fmt: skip
LAYERED = ((0, 0.5, 0.9, 0.96, 0.984, 0.992, 0.996, 1), (0, 0.5, 1))
STEPS = (1e-3, 6e-3, 0.03, 0.12, 0.4)  # from where the data jump, at x = -1 and 1 on the axis
GRADED = (
    (-1, *(step - 1 for step in STEPS), 0, *(1 - step for step in reversed(STEPS)), 1),
    (-1, *(-step for step in reversed(STEPS)), 0, *STEPS, 1),
)
HOLES = ((-0.45, -0.5), (0.5, -0.4), (-0.4, 0.45), (0.45, 0.5))


def waves_1d() -> Problem:
    """Pose u' = cos(15 x) on [-2 pi, 2 pi], u(0) = 0 (Moseley, Markham and Nissen-Meyer 2023, 5.2.2)."""

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 0] - torch.cos(15 * x[..., 0])

    def exact(x: Tensor) -> Tensor:
        return torch.sin(15 * x[..., 0]) / 15

    return Problem("waves", box([-2 * math.pi], [2 * math.pi]), residual, [pinned([0.0])], exact, second="none")


def waves_2d() -> Problem:
    """Pose Laplacian u = f on the unit square, u the sum of sin(k pi x) sin(k pi y) / sqrt(k) over k = 1 ... 40."""
    k = torch.arange(1, 41, dtype=torch.float64)
    size = k**-0.5

    def parts(x: Tensor) -> Tensor:
        return size * torch.sin(math.pi * k * x[..., :1]) * torch.sin(math.pi * k * x[..., 1:])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1) + (2 * (math.pi * k) ** 2 * parts(x)).sum(-1)

    return Problem("frequencies", box([0, 0], [1, 1]), residual, [dirichlet(0.0)], lambda x: parts(x).sum(-1))


def layer(eps: float = 1e-3) -> Problem:
    """Pose -eps Laplacian u + u_x = f with an exponential layer of that width at x = 1."""

    def profile(x: Tensor) -> Tensor:
        return x - (torch.exp((x - 1) / eps) - math.exp(-1 / eps)) / (1 - math.exp(-1 / eps))

    def exact(x: Tensor) -> Tensor:
        return profile(x[..., 0]) * torch.sin(math.pi * x[..., 1])

    def residual(u: Jet, x: Tensor) -> Tensor:  # -eps p'' + p' = 1
        source = (1 + eps * math.pi**2 * profile(x[..., 0])) * torch.sin(math.pi * x[..., 1])
        return -eps * u.second[..., 0, :].sum(-1) + u.gradient[..., 0, 0] - source

    return Problem("layer", box([0, 0], [1, 1]), residual, [dirichlet(0.0)], exact)


def conductors(low: float = 1.0, high: float = 100.0, at: float = 0.4) -> Problem:
    """Pose div(k grad u) = 0 with k = 1 below x = 0.4 and 100 above: u = sinh(pi x) sin(pi y) there, and what follows of it."""
    region = box([0, 0], [1, 1], breaks={"x": [at]})
    ratio, begin = low / high, math.pi * at

    def exact(x: Tensor) -> Tensor:
        t = math.pi * x[..., 0]
        above = math.sinh(begin) * torch.cosh(t - begin) + ratio * math.cosh(begin) * torch.sinh(t - begin)
        return torch.where(x[..., 0] <= at, torch.sinh(t), above) * torch.sin(math.pi * x[..., 1])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1)

    walls = ["x=min", "x=max", "y=min", "y=max"]
    conditions = [dirichlet(exact, walls), *interface(region, "x", at, (low, high))]
    return Problem("conductors", region, residual, conditions, exact)


def holes() -> Problem:
    """Pose Laplacian u = 0 on a square with four round holes: u is a sum of logarithms about their centres, and x y."""
    region: Any = box([-1, -1], [1, 1])
    for number, centre in enumerate(HOLES):
        region = difference(region, circle(centre, 0.2, f"hole {number}"))
    centres = torch.tensor(HOLES, dtype=torch.float64)
    signs = torch.tensor([1.0, -0.5, 0.8, -1.2], dtype=torch.float64)

    def exact(x: Tensor) -> Tensor:
        square = (x[..., None, :] - centres).square().sum(-1)
        return (0.5 * signs * torch.log(square)).sum(-1) + x[..., 0] * x[..., 1]

    return Problem("holes", region, lambda u, x: u.second[..., 0, :].sum(-1), [dirichlet(exact)], exact)


def jump_on_disc() -> Problem:
    """Pose Laplacian u = 0 on the unit disc with u = 1 on its upper half and 0 on the lower."""

    def exact(x: Tensor) -> Tensor:
        return 0.5 + torch.atan2(2 * x[..., 1], 1 - x.square().sum(-1)) / math.pi

    def edge(x: Tensor) -> Tensor:
        return (x[..., 1] > 0).double()

    return Problem("jump", disc(), lambda u, x: u.second[..., 0, :].sum(-1), [dirichlet(edge)], exact)


@dataclass(frozen=True)
class Case:
    """A problem, how it is cut, and the recipe; without subdomains one network, or the default."""

    problem: Callable[[], Problem]
    cut: Subdomains | None
    recipe: str = "default"
    seconds: float = 30.0


def _named(name: str) -> Callable[[], Problem]:
    return lambda: problem_named(name)


HELMHOLTZ, POISSON = _named("helmholtz-2d-6-6"), _named("poisson-2d")
CASES = {
    **{f"poisson 4x4 {c}": Case(POISSON, Subdomains((4, 4), c, modes=10)) for c in ("fbpinn", "xpinn", "cpinn")},
    **{f"poisson {n}x{n}": Case(POISSON, Subdomains((n, n), "cpinn", modes=10), seconds=120) for n in (8, 16, 32)},
    **{f"poisson {n}x{n} fbpinn": Case(POISSON, Subdomains((n, n), modes=10), seconds=120) for n in (8, 12)},
    "waves cpinn": Case(waves_1d, Subdomains(40, "cpinn")),
    "waves fbpinn": Case(waves_1d, Subdomains(40)),
    "waves trained": Case(waves_1d, None, "trained", 15.0),
    "waves default": Case(waves_1d, None),
    "frequencies cpinn": Case(waves_2d, Subdomains((12, 12), "cpinn", modes=20)),
    "frequencies trained": Case(waves_2d, None, "trained", 15.0),
    "frequencies default": Case(waves_2d, None, seconds=15.0),
    "helmholtz cpinn": Case(HELMHOLTZ, Subdomains((4, 4), "cpinn")),
    "helmholtz fbpinn": Case(HELMHOLTZ, Subdomains((4, 4), modes=21, overlap=0.25)),
    "helmholtz trained": Case(HELMHOLTZ, None, "trained", 15.0),
    "helmholtz default": Case(HELMHOLTZ, None, seconds=15.0),
    "layer": Case(layer, Subdomains(coupling="cpinn", knots=LAYERED, modes=16), seconds=60),
    "conductors": Case(conductors, Subdomains((4, 4), "cpinn"), seconds=60),
    "holes": Case(holes, Subdomains((6, 6), "cpinn", modes=15), seconds=60),
    "jump": Case(jump_on_disc, Subdomains(coupling="cpinn", knots=GRADED, modes=10), seconds=60),
}


def solved(case: Case) -> Solution:
    """Solve a case."""
    settings = SolveSettings(seconds=case.seconds, clock="processor", subdomains=case.cut)
    return solve(case.problem(), recipe=case.recipe, settings=settings)


def error_of(found: Solution) -> float:
    """Compute the relative L2 error by Gauss-Legendre quadrature: no point is where data jump, and layers are seen."""
    region = found.problem.region
    nodes = 2000 if found.problem.dimension == 1 else 100 if isinstance(region, Outline) else 200
    points, weights = (torch.from_numpy(part) for part in quadrature(region, nodes))
    truth = found.problem.reference_values(points)[:, 0]
    missed = torch.cat([found(part)[:, 0] for part in points.split(20_000)]) - truth
    return float((weights @ missed.square() / (weights @ truth.square())).sqrt())


def row(name: str) -> dict[str, object]:
    """Solve a case, and tell what came out."""
    case = CASES[name]
    found = solved(case)
    metrics, cut = found.metrics, case.cut

    def jump(*words: str) -> str:
        sizes = [one["violation"] for one in metrics["conditions"] if one["name"].startswith(words)]
        return f"{max(sizes):.2g}" if sizes else ("0" if cut is not None and not cut.sharp else "")

    return {
        "case": name,
        "problem": found.problem.name,
        "grid": "" if cut is None else "x".join(map(str, cut.partition(found.problem).counts)),
        "coupling": "" if cut is None else cut.coupling,
        "recipe": case.recipe,
        "relative_l2": f"{error_of(found):.2g}",
        "value_jump": jump("value across"),
        "slope_jump": jump("slope across", "flux across"),
        "processor_s": f"{metrics['seconds']:.1f}",
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "boxes": metrics.get("boxes", 1),
        "parameters": metrics["parameters"],
        "trust": found.trust,
    }


def keep(found: dict[str, object]) -> None:
    """Put a line in place of the one of its case."""
    lines: dict[str, dict[str, object]] = {}
    if CSV.is_file():
        with CSV.open(newline="") as file:
            lines = {one["case"]: dict(one) for one in csv.DictReader(file)}
    lines[str(found["case"])] = found
    with CSV.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines[name] for name in CASES if name in lines)


def draw() -> None:
    """Draw values with subdomains, jumps at interfaces and errors of four cases."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = ("helmholtz cpinn", "layer", "holes", "jump")
    figure, axes = plt.subplots(2, len(names), figsize=(15, 7.4))
    for column, name in zip(axes.T, names, strict=True):
        found = solved(CASES[name])
        region = found.problem.region
        low, high = np.asarray(region.lower), np.asarray(region.upper)
        ticks = [np.linspace(a, b, 301) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1)
        inside = region.contains(grid.reshape(-1, 2)).reshape(301, 301)
        value = np.where(inside, found(grid)[..., 0], np.nan)
        truth = found.problem.reference_values(torch.from_numpy(grid.reshape(-1, 2))).numpy().reshape(301, 301)
        error = np.where(inside, np.log10(np.abs(value - truth) + 1e-17), np.nan)
        shown = column[0].pcolormesh(*ticks, value.T, cmap="viridis", rasterized=True)
        figure.colorbar(shown, ax=column[0], shrink=0.75)
        wrong = column[1].pcolormesh(*ticks, error.T, cmap="magma", rasterized=True)
        figure.colorbar(wrong, ax=column[1], shrink=0.75, label="log10 |error|")
        for axis in column:
            for number, pieces in enumerate(found.field.partition.axes):
                line = axis.axvline if number == 0 else axis.axhline
                for cut in pieces.cuts:
                    line(cut, color="white", linewidth=0.4)
            axis.set_aspect("equal")
        conditions = found.metrics["conditions"]
        across = max((one["violation"] for one in conditions if one["name"].startswith("value across")), default=0.0)
        column[0].set_title(f"{name}: {len(found.field.partition)} subdomains", fontsize=10)
        told = f"relative L2 {error_of(found):.0e}\nlargest jump of values {across:.0e}"
        column[1].set_title(told, fontsize=10)
    figure.tight_layout()
    figure.savefig(PICTURES / "subdomains.png", dpi=80)


def draw_couplings() -> None:
    """Draw values with subdomains, and below what jumps along the first cut, of the same problem by every coupling."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(12, 7))
    ticks = np.linspace(0, 1, 241)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1)
    for column, coupling in zip(axes.T, ("fbpinn", "xpinn", "cpinn"), strict=True):
        found = solved(Case(POISSON, Subdomains((3, 3), coupling, modes=6)))
        shown = column[0].pcolormesh(ticks, ticks, found(grid)[..., 0].T, cmap="viridis", rasterized=True)
        figure.colorbar(shown, ax=column[0], shrink=0.75)
        for number, pieces in enumerate(found.field.partition.axes):
            line, band = (
                (column[0].axvline, column[0].axvspan) if number == 0 else (column[0].axhline, column[0].axhspan)
            )
            for cut in pieces.cuts:
                line(cut, color="white", linewidth=0.6)
                if pieces.ramp:
                    band(cut - pieces.ramp / 2, cut + pieces.ramp / 2, color="white", alpha=0.2, linewidth=0)
        column[0].set_aspect("equal")
        column[0].set_title(f"{coupling}: relative L2 {error_of(found):.0e}", fontsize=10)
        cut = found.field.partition.axes[0].cuts[0]
        jets = [jet_on(found, np.nextafter(cut, end), ticks) for end in (0.0, 1.0)]
        for name, below, above in zip(("value", "slope", "bend"), *jets, strict=True):
            column[1].semilogy(ticks, np.abs(above - below) + 1e-17, label=f"jump of the {name}")
        column[1].set(xlabel="y", ylim=(3e-18, 1), title="across the first cut")
        column[1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURES / "couplings.png", dpi=80)


def jet_on(found: Solution, x: float, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Evaluate a solution with its first and second derivative by x along a line."""
    points = torch.from_numpy(np.stack([np.full_like(y, x), y], axis=-1))
    with torch.no_grad():
        jet = found.field.jet(points)
    return jet.value[:, 0].numpy(), jet.gradient[:, 0, 0].numpy(), jet.second[:, 0, 0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--picture", action="store_true", help="draw instead of measuring")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.picture:
        draw_couplings()
        draw()
    elif len(given.cases) == 1:
        found = row(given.cases[0])
        print(found, flush=True)
        keep(found)
    else:
        for name in given.cases or CASES:  # a process for each, whose memory is its own
            subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
