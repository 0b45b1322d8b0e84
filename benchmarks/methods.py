"""Methods at equal processor seconds on one network, and what a step of each costs.

    python benchmarks/methods.py [--seconds 4] [--problems NAME ...] [--only race|costs|picture]

One core, float64, a [d, 12, 12, 1] network of degree 5 with exact values at the ends of a box, the points, weights and
start of the recipe `trained`, seed 0. results/methods.csv has a line a solve: the relative L2 error of the best held-out state
after `seconds` of processor time (evaluations of the error are not counted), and the steps. results/methods_trace.csv has
the error on the way, drawn in docs/images/methods.png. results/methods_costs.csv has milliseconds of a step, and peak memory
where that is the point.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch

from cpikan.fields.constrained import ConstrainedField
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.damped_systems import Limits, damped_system
from cpikan.learning.iterate import placed
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.method import Method
from cpikan.learning.methods.muon import Muon
from cpikan.learning.methods.natural_gradient import GaussNewtonCG, NaturalGradient
from cpikan.learning.methods.quasi_newton import Dense, QuasiNewton
from cpikan.learning.methods.soap import Soap
from cpikan.learning.methods.spring import Spring
from cpikan.learning.objective import Objective
from cpikan.learning.recipes import RECIPES
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import errors, evaluate, test_points
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.exact_conditions import with_exact_conditions

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "methods.png"
PROBLEMS = ("poisson-2d", "helmholtz-2d-1-4")
LONG = 10**6  # steps: the clock ends them
METHODS: dict[str, tuple[Method, ...]] = {
    "Adam": (Adam(LONG, 5e-3, decay=0.95),),
    "SOAP": (Soap(LONG, 1e-2, decay=0.9),),
    "SOAP, 200 points": (Soap(LONG, 1e-2, decay=0.9, batch=200),),
    "Muon": (Muon(LONG, 1e-2, decay=0.9),),
    "SSBroyden": (Adam(200, 5e-3), QuasiNewton("ssbroyden", LONG)),
    "SSBFGS": (Adam(200, 5e-3), QuasiNewton("ssbfgs", LONG)),
    "GaussNewtonCG": (GaussNewtonCG(LONG),),
    "NaturalGradient": (NaturalGradient(LONG),),
    "SPRING": (Spring(LONG),),
    "SPRING, 200 points": (Spring(LONG, batch=200),),
    "GeodesicLevenberg": (GeodesicLevenberg(LONG),),
}
FIELDS = ("problem", "method", "relative_l2", "heldout_relative", "processor_s", "steps")
Line = dict[str, object]


def race(problem: str, method: str, seconds: float) -> tuple[Line, list[Line]]:
    """Let a method run for so many processor seconds; gives its line, and those of the error on the way."""
    recipe, given = RECIPES["trained"], problem_named(problem)
    posed, ansatz = with_exact_conditions(given)
    network = recipe.network(given, 0)
    points = recipe.points(given, sum(p.numel() for p in network.parameters()), 0)
    iterate = placed(posed, network, points, recipe.balancer)[0]
    whole = network if ansatz is None else ConstrainedField(network, ansatz)
    grid, trace, steps, used, mark = test_points(given), [], 0, 0.0, 0.25
    iterate.keep_best()
    for stage in METHODS[method]:
        begun = time.process_time()
        state = stage.init(iterate.objective, network)
        used += time.process_time() - begun
        while stage.stop(state) is StopReason.RUNNING and used < seconds:
            begun = time.process_time()
            state, cost = stage.step(iterate.objective, network, state)
            steps += 1
            if not math.isfinite(cost):
                iterate.restore_best()
            if steps % stage.look_every == 0:
                iterate.keep_best()
            used += time.process_time() - begun
            if used >= mark:
                mark *= 2**0.5
                trace.append({"problem": problem, "method": method, "processor_s": f"{used:.3g}"})
                trace[-1]["relative_l2"] = f"{_best_error(given, iterate, whole, grid):.3g}"
        iterate.keep_best()
        iterate.restore_best()
    line = {"problem": problem, "method": method, "relative_l2": f"{errors(given, evaluate(whole, grid), grid)[0]:.3g}"}
    return {
        **line,
        "heldout_relative": f"{iterate.relative():.3g}",
        "processor_s": f"{used:.1f}",
        "steps": steps,
    }, trace


def _best_error(given, iterate, whole, grid) -> float:
    now = {name: part.clone() for name, part in iterate.field.state_dict().items()}
    iterate.restore_best()
    found = errors(given, evaluate(whole, grid), grid)[0]
    iterate.field.load_state_dict(now)
    return found


def _milliseconds(work: Callable[[], object], repeats: int) -> float:
    work()
    begun = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - begun) / repeats * 1e3


class Apart(GeodesicLevenberg):
    """The method with every evaluation of its own."""

    def place(self, objective: Objective, field: torch.nn.Module) -> Objective:
        return objective


def costs() -> Iterator[Line]:
    """Measure steps and updates."""
    for size in (1000, 4000):
        generator = torch.Generator().manual_seed(0)
        s, g = (torch.randn(size, dtype=torch.float64, generator=generator) for _ in range(2))
        y = s + 0.1 * torch.randn(size, dtype=torch.float64, generator=generator)
        y = y if float(s @ y) > 0 else -y
        matrix = Dense("ssbroyden", torch.eye(size, dtype=torch.float64))
        took = _milliseconds(lambda m=matrix, s=s, y=y, g=g: m.update(s, y, -s, 1.0), 20)
        yield {"what": "SSBroyden update in place", "parameters": size, "milliseconds": f"{took:.3g}"}
        took = _milliseconds(lambda m=matrix, s=s, y=y: _whole_update(m, s, y), 3)
        yield {"what": "SSBroyden update with whole matrices", "parameters": size, "milliseconds": f"{took:.3g}"}
    for name, kind in (("shared", GeodesicLevenberg), ("apart", Apart)):
        network, objective = _on("helmholtz-2d-1-4", (12, 12), 1150)
        method, state = kind(LONG, patience=None), None
        state = method.init(objective, network)
        taken, begun = 0, time.process_time()
        while taken < 15:
            state, _ = method.step(objective, network, state)
            taken += 1
        took = (time.process_time() - begun) / taken * 1e3
        count = sum(p.numel() for p in network.parameters())
        yield {"what": f"GeodesicLevenberg, hidden layers {name}", "parameters": count, "milliseconds": f"{took:.3g}"}
    for hidden in ((40, 40), (140, 140), (446, 446)):
        network, objective = _on("poisson-2d", hidden, 100)
        count = sum(p.numel() for p in network.parameters())
        for name, limits in (("J stored", Limits()), ("by products", Limits(0, rank=10, tolerance=1e-2, products=15))):
            if name == "J stored" and count > 200_000:
                continue
            limits = replace(limits, entries=10**9 if name == "J stored" else 0)
            begun = time.process_time()
            system = damped_system(objective, network, limits)
            step = system.solver(1e-4 * system.scale)(system.residuals)
            took = (time.process_time() - begun) * 1e3
            left = float((system.residuals + system.times(step)).norm() / system.residuals.norm())
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            yield {
                "what": f"natural gradient of {len(system.residuals)} residuals, {name}",
                "parameters": count,
                "milliseconds": f"{took:.3g}",
                "left_of_residuals": f"{left:.3g}",
                "peak_mib": f"{peak:.0f}",
            }


def _on(name: str, hidden: tuple[int, ...], interior: int) -> tuple[ScaledCPIKAN, Objective]:
    posed = with_exact_conditions(problem_named(name))[0]
    box = (posed.region.lower, posed.region.upper)
    network = ScaledCPIKAN([posed.dimension, *hidden, posed.outputs], 5, box, start=Start(0))
    return network, placed(posed, network, Points(interior, 40), MEAN_SQUARES)[0].objective


def _whole_update(matrix: Dense, s: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same update by outer products."""
    h, ys = matrix.matrix, float(s @ y)
    hy = h @ y
    yhy = float(y @ hy)
    v = s / ys - hy / yhy
    found = (h - torch.outer(hy, hy / yhy) + 0.9 * yhy * torch.outer(v, v)) / 0.9 + torch.outer(s, s / ys)
    return 0.5 * (found + found.mT)


def draw() -> None:
    """Draw the error on the way."""
    from matplotlib.figure import Figure

    with (RESULTS / "methods_trace.csv").open() as file:
        lines = list(csv.DictReader(file))
    names = list(dict.fromkeys(line["problem"] for line in lines))
    figure = Figure(figsize=(4.2 * len(names), 4.2), layout="constrained")
    for number, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), number + 1)
        for place, method in enumerate(METHODS):
            mine = [line for line in lines if line["problem"] == name and line["method"] == method]
            dashed = "--" if "points" in method else "-"
            axes.semilogy(
                [float(line["processor_s"]) for line in mine],
                [float(line["relative_l2"]) for line in mine],
                dashed, color=f"C{place}" if place < 10 else "black", label=method if number == 0 else None, linewidth=1.2,
            )  # fmt: skip
        axes.set(title=name, xlabel="processor seconds", ylabel="relative L2 error" if number == 0 else "")
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(PICTURE, dpi=110)


def _write(name: str, fields: tuple[str, ...], lines: list[Line]) -> None:
    with (RESULTS / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", choices=("race", "costs", "picture"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only in (None, "costs"):
        found = []
        for line in costs():
            print(line, flush=True)
            found.append(line)
        _write("methods_costs.csv", ("what", "parameters", "milliseconds", "left_of_residuals", "peak_mib"), found)
    if given.only in (None, "race"):
        lines: list[Line] = []
        traces: list[Line] = []
        for problem in given.problems:
            for method in METHODS:
                line, trace = race(problem, method, given.seconds)
                print(line, flush=True)
                lines.append(line)
                traces += trace
                _write("methods.csv", FIELDS, lines)
                _write("methods_trace.csv", ("problem", "method", "processor_s", "relative_l2"), traces)
    if given.only in (None, "picture"):
        draw()


if __name__ == "__main__":
    main()
