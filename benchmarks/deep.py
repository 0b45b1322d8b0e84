"""Deep Chebyshev networks: what starts and gates are worth at equal processor time, and what a start does to slopes with depth.

    python benchmarks/deep.py [--only start|picture|train] [--seconds 7] [--seeds 0 1] [--problems NAME ...] [--starts RULE ...]

One core, float64. results/deep.csv has a line a solve by recipe `trained` (geodesic Levenberg-Marquardt, the output layer
solved for at each step, exact values at the ends of a box) in `seconds` of processor time: hidden layers of 6 nodes, degree 5
in the first and the last layer, 3 between them. results/deep_start.csv has a line for each rule, degree and depth of a network
of 32 nodes as it was drawn: root mean squares over points and draws of the last sums, of their slopes and of their second
derivatives, the latter two relative to those behind one layer, and the gradient of a residual's mean square by the first layer
over that by the last but one. The picture docs/images/deep_start.png shows the slopes.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch

from cpikan.fields.layered import LayeredField
from cpikan.fields.residual_ckan import ResidualCKAN
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.fields.start import Rule, Start
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem as problem_named

ROOT = Path(__file__).resolve().parent
RESULTS, PICTURE = ROOT / "results", ROOT.parent / "docs" / "images" / "deep_start.png"
PROBLEMS, DEPTHS, NODES = ("helmholtz-2d-1-4", "allen-cahn"), (2, 4, 8), 6
ENDS, INNER = 5, 3
RULES: tuple[Rule, ...] = ("variance", "critical", "glorot")
START_DEPTHS, WIDE, DRAWS, POINTS = (1, 2, 3, 4, 6, 8, 10, 12), 32, 8, 200


def network(problem: str, depth: int, rule: Rule, gates: bool, seed: int) -> LayeredField:
    """The network of a run; with gates its layers begin behind closed ones."""
    posed = problem_named(problem)
    widths = [posed.dimension, *[NODES] * depth, posed.outputs]
    degrees = (ENDS, *[INNER] * (depth - 1), ENDS)
    kind = ResidualCKAN if gates else ScaledCPIKAN
    box = (posed.region.lower, posed.region.upper)
    return kind(widths, degrees, box, start=Start(seed, rule=rule))


def trained(problem: str, depth: int, rule: Rule, gates: bool, seed: int, seconds: float) -> dict[str, object]:
    """A line of deep.csv."""
    field = network(problem, depth, rule, gates, seed)
    begun = time.process_time()
    settings = SolveSettings(seconds=seconds, clock="processor", constraints="exact")
    metrics = solve(problem, field, "trained", seed=seed, settings=settings).metrics
    return {
        "problem": problem,
        "depth": depth,
        "start": rule,
        "gates": "residual" if gates else "none",
        "seed": seed,
        "relative_l2": f"{metrics['relative_l2']:.3g}",
        "heldout_relative": f"{metrics['heldout_relative']:.3g}",
        "processor_s": f"{time.process_time() - begun:.1f}",
        "steps": metrics["iterations"],
        "parameters": metrics["parameters"],
    }


def begun(rule: Rule, degree: int, depth: int) -> tuple[float, float, float, float]:
    """Root mean squares of the sums behind ``depth`` layers, their slopes and bends, and the ratio of gradients."""
    x = 2 * torch.rand(POINTS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1
    sums = torch.zeros(4, dtype=torch.float64)
    for seed in range(DRAWS):
        field = ScaledCPIKAN([2, *[WIDE] * depth], degree, start=Start(seed, rule=rule))
        jet = field.jet(x)
        sums[:3] += torch.stack([part.detach().square().mean() for part in jet])
        if depth > 2:
            cost = jet.second.sum(-1).square().mean()
            first, last = torch.autograd.grad(cost, (field.layers[0].weight, field.layers[-2].weight))
            sums[3] += (first.norm() / last.norm()) ** 2
    found = (sums / DRAWS).sqrt().tolist()
    return found[0], found[1], found[2], found[3]


def starts() -> Iterator[dict[str, object]]:
    """The lines of deep_start.csv."""
    for degree in (3, 5, 8):
        for rule in RULES:
            base = begun(rule, degree, START_DEPTHS[0])
            for depth in START_DEPTHS:
                value, slope, bend, ratio = begun(rule, degree, depth)
                yield {
                    "degree": degree,
                    "start": rule,
                    "depth": depth,
                    "value": f"{value:.4g}",
                    "slope": f"{slope / base[1]:.4g}",
                    "bend": f"{bend / base[2]:.4g}",
                    "gradient_first_over_last": f"{ratio:.4g}" if depth > 2 else "",
                }


def picture(lines: list[dict[str, str]]) -> None:
    """Draw slopes over depth, a curve for each rule, a panel for each degree."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(9, 3.2), sharey=True, constrained_layout=True)
    for panel, degree in zip(panels, (3, 5, 8), strict=True):
        for rule, mark in zip(RULES, ("o-", "s-", "^-"), strict=True):
            chosen = [line for line in lines if int(line["degree"]) == degree and line["start"] == rule]
            panel.semilogy(
                [int(str(c["depth"])) for c in chosen], [float(str(c["slope"])) for c in chosen], mark, label=rule, ms=4
            )
        panel.axhline(1, color="0.4", ls=":", label="behind closed gates")
        panel.set(title=f"degree {degree}", xlabel="layers", xticks=range(2, 13, 2))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("slopes over those of one layer")
    panels[0].legend(fontsize=8)
    figure.savefig(PICTURE, dpi=110)


def write(path: Path, lines: Iterator[dict[str, object]]) -> list[dict[str, object]]:
    """Write lines as they come."""
    kept: list[dict[str, object]] = []
    with path.open("w", newline="") as file:
        for line in lines:
            if not kept:
                writer = csv.DictWriter(file, list(line), lineterminator="\n")
                writer.writeheader()
            print(line, flush=True)
            writer.writerow(line)
            file.flush()
            kept.append(line)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("start", "picture", "train"))
    parser.add_argument("--seconds", type=float, default=7.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--starts", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--csv", type=Path, default=RESULTS / "deep.csv")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = RESULTS / "deep_start.csv"
    if given.only in (None, "start"):
        write(table, starts())
    if given.only in (None, "start", "picture"):
        with table.open(newline="") as file:
            picture(list(csv.DictReader(file)))
    if given.only in (None, "train"):
        runs = (
            trained(problem, depth, rule, gates, seed, given.seconds)
            for seed in given.seeds
            for problem in given.problems
            for depth in DEPTHS
            for rule in given.starts
            for gates in (False, True)
        )
        write(given.csv, runs)


if __name__ == "__main__":
    main()
