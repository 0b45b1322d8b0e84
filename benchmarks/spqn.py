"""SPQN against L-BFGS at equal gradient evaluations: Burgers, Allen-Cahn, Klein-Gordon and diffusion with advection.

    python benchmarks/spqn.py [PROBLEM ...] [--seed N ...]

Networks of two hidden layers of 10 nodes, degree 4, the same points, weights and starts for all methods, one core, float64.
Every evaluation of the cost counts, that of one layer's gradient as much as that of all: EVALUATIONS of them each. `cost` is
the cost then, relative to that at the start, `relative_l2` the error, `steps` those of all parameters. A line of
results/spqn.csv for every problem, method and seed; those that are measured again are replaced.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.methods.method import Method
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.methods.schwarz_quasi_newton import SchwarzQuasiNewton
from cpikan.learning.objective import make_objective
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.problem import Problem, dirichlet, initial, initial_rate
from cpikan.physics.regions import box

CSV = Path(__file__).parent / "results" / "spqn.csv"
FIELDS = ("problem", "method", "seed", "cost", "relative_l2", "steps", "evaluations", "processor_s")
SEEDS, EVALUATIONS, MOST = 3, 250, 100_000
METHODS: dict[str, Method] = {
    "lbfgs": QuasiNewton("lbfgs", MOST),
    "aspqn": SchwarzQuasiNewton("additive", MOST),
    "mspqn": SchwarzQuasiNewton("multiplicative", MOST),
}
LAYERS = (
    3  # so many times the evaluations with --layer: the gradient of one layer is then counted as a share of the whole
)
PROBLEMS = ("burgers", "allen-cahn", "klein-gordon", "diffusion-advection")


class Spent(Exception):
    """The evaluations are used up."""


@dataclass
class Counter:
    """Count evaluations, and end at the last."""

    left: int

    def __call__(self, operations: float) -> None:
        if self.left <= 0:
            raise Spent
        self.left -= 1


def diffusion_advection() -> Problem:
    """Pose u_t + u_x = 0.05 u_xx on [0, 1] x [0, 1] with the decaying wave exp(-nu k^2 t) sin(k (x - t)), k = 2 pi."""
    k, nu = 2 * torch.pi, 0.05

    def exact(x: Tensor) -> Tensor:
        return torch.exp(-nu * k**2 * x[..., 1]) * torch.sin(k * (x[..., 0] - x[..., 1]))

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] + u.gradient[..., 0, 0] - nu * u.second[..., 0, 0]

    conditions = [dirichlet(exact, ["x=min", "x=max"]), initial(exact)]
    return Problem("diffusion-advection", box([0, 0], [1, 1], ["x", "t"]), residual, conditions, exact)


def klein_gordon() -> Problem:
    """Pose u_tt - u_xx + u^3 = f on [0, 1] x [0, 1] with u = x cos(5 pi t) + (x t)^3 (Wang, Teng and Perdikaris 2021)."""
    rate = 5 * torch.pi

    def exact(x: Tensor) -> Tensor:
        return x[..., 0] * torch.cos(rate * x[..., 1]) + (x[..., 0] * x[..., 1]) ** 3

    def residual(u: Jet, x: Tensor) -> Tensor:
        place, t = x[..., 0], x[..., 1]
        source = -(rate**2) * place * torch.cos(rate * t) + 6 * place**3 * t - 6 * place * t**3 + exact(x) ** 3
        return u.second[..., 0, 1] - u.second[..., 0, 0] + u.value[..., 0] ** 3 - source

    conditions = [dirichlet(exact, ["x=min", "x=max"]), initial(exact), initial_rate(0.0)]
    return Problem("klein-gordon", box([0, 0], [1, 1], ["x", "t"]), residual, conditions, exact)


OURS = {"klein-gordon": klein_gordon, "diffusion-advection": diffusion_advection}


def posed(name: str) -> Problem:
    return OURS[name]() if name in OURS else problem_named(name)


def run(problem: Problem, method: Method, seed: int, evaluations: int) -> tuple[float, float, int, float]:
    """Minimise within the evaluations; gives cost, error, steps and processor seconds."""
    ends = (problem.region.lower, problem.region.upper)
    field = ScaledCPIKAN([problem.dimension, 10, 10, problem.outputs], 4, ends, start=Start(seed))
    points = Points(500, 150, seed=seed).init(problem)[0]
    objective = KERNEL_TRACES.init(make_objective(problem, points), field)[0]
    start = objective.finite_cost(field)
    counted = replace(objective, watch=Counter(evaluations))
    best, kept, steps, begun = (
        start,
        {n: p.detach().clone() for n, p in field.named_parameters()},
        0,
        time.process_time(),
    )
    try:
        state = method.init(counted, field)
        while method.stop(state) is StopReason.RUNNING:
            state, cost = method.step(counted, field, state)
            steps += 1
            if cost < best:
                best, kept = cost, {n: p.detach().clone() for n, p in field.named_parameters()}
    except Spent:
        pass
    taken = time.process_time() - begun
    field.load_state_dict({**field.state_dict(), **kept})
    low, high = (torch.tensor(end, dtype=torch.float64) for end in ends)
    at = low + (high - low) * torch.rand(
        2000, problem.dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(7)
    )
    with torch.no_grad():
        truth = problem.reference_values(at)
        missed = float((field(at) - truth).norm() / truth.norm())
    return best / start, missed, steps, taken


def keep(found: dict[str, object]) -> None:
    """Put a line in place of the one of its problem, method and seed."""
    kept: list[dict[str, object]] = []
    if CSV.is_file():
        with CSV.open(newline="") as file:
            kept = list(csv.DictReader(file))
    same = ("problem", "method", "seed")
    kept = [one for one in kept if any(str(one[name]) != str(found[name]) for name in same)]
    order = list(PROBLEMS), [*METHODS, "mspqn by layer"]
    kept = sorted(
        [*kept, found],
        key=lambda one: (
            order[0].index(str(one["problem"])),
            order[1].index(str(one["method"])),
            int(str(one["seed"])),
        ),
    )
    with CSV.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=", ".join(PROBLEMS))
    parser.add_argument("--seed", nargs="*", type=int, default=list(range(SEEDS)), metavar="N")
    parser.add_argument(
        "--layer", action="store_true", help="count a layer's gradient as its share: mspqn alone, LAYERS times as long"
    )
    torch.set_num_threads(1)
    given = parser.parse_args()
    evaluations = EVALUATIONS * (LAYERS if given.layer else 1)
    methods = {"mspqn by layer": METHODS["mspqn"]} if given.layer else METHODS
    for name in given.problems or PROBLEMS:
        for seed in given.seed:
            for method, made in methods.items():
                cost, error, steps, taken = run(posed(name), made, seed, evaluations)
                values = (name, method, seed, f"{cost:.2g}", f"{error:.2g}", steps, evaluations, f"{taken:.1f}")
                print(*values, flush=True)
                keep(dict(zip(FIELDS, values, strict=True)))


if __name__ == "__main__":
    main()
