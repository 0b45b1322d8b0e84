"""Other packages on the catalogue's problems: same problem, same seconds, one core, one run; writes results/pde_peers.csv.

    python benchmarks/pde_peers.py [PROBLEM ...] [--seconds 40] [--methods NAME ...] [--resume]

DeepXDE (torch backend, float32 and float64): 3 tanh layers of 50 nodes, Adam at 1e-3 for half the time, then L-BFGS, on
points that stay. Scimba (torch part): 3 tanh layers of 20 nodes, weak boundary conditions, by energy natural gradient on
points drawn anew in every step. The paper's recipe (Adam, then L-BFGS on [8, 8] nodes of degree 5) and the default
recipe are those of this package. Every residual is the catalogue's own. Every solve is a process of its own with one
thread; errors are taken on the same test points with the clock stopped, imports and construction are not timed. Peers
are given processor seconds, so that other work on the machine takes nothing from them (on an idle one they are wall
seconds); ours are given wall seconds. No method is tuned to a problem. What is not installed is left out, and that is
said.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("DDE_BACKEND", "pytorch")

import argparse
import csv
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.learning.samplers.points import Points, boundary_points
from cpikan.learning.solver import SolveSettings, solve, test_points
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box
from pde_watch import TOLERANCES, watched

RESULTS = Path(__file__).parent / "results" / "pde_peers.csv"
PROBLEMS = (
    *("helmholtz-1d", "helmholtz-1d-k4pi", "helmholtz-2d-1-4", "poisson-3d", "burgers", "allen-cahn", "diffusion"),
)
TIMES = tuple(f"s_{tolerance:.0e}".replace("e-0", "e-") for tolerance in TOLERANCES)
COLUMNS = (
    *("problem", "method", "version", "seed", "limit_seconds", "relative_l2", "best_l2", "seconds", "cpu_seconds"),
    *(*TIMES, "iterations", "parameters", "note"),
)
_POINTS = {1: 256, 2: 1024, 3: 1024}
_EVERY_S = 0.5


class TimeUp(Exception):
    """The time that was given is over."""


class Clock:
    """Seconds of a solve without those of looking at its error."""

    def __init__(self, one: Problem, limit_s: float) -> None:
        self.problem, self.limit_s, self.x = one, limit_s, test_points(one)
        self.truth = one.reference_values(self.x)
        self.errors: list[tuple[float, float]] = []
        self.iterations, self._looked = 0, 0.0
        self.started = time.process_time()

    @property
    def seconds(self) -> float:
        """Processor seconds."""
        return time.process_time() - self.started

    def tick(self, values: Callable[[], Tensor]) -> bool:
        """Count an iteration, look at the error now and then; whether time is up."""
        self.iterations += 1
        now = self.seconds
        if now - self._looked > _EVERY_S or now > self.limit_s:
            self.look(values)
        return now > self.limit_s

    def look(self, values: Callable[[], Tensor]) -> None:
        begun, at = time.process_time(), self.seconds
        with torch.no_grad():
            found = values().double()
        self.errors.append((at, float((found - self.truth).norm() / self.truth.norm())))
        self._looked = at
        self.started += time.process_time() - begun

    def row(self) -> dict[str, Any]:
        best = min((error for _, error in self.errors), default=float("nan"))
        reached = (next((s for s, error in self.errors if error <= tolerance), None) for tolerance in TOLERANCES)
        return {
            "relative_l2": self.errors[-1][1],
            "best_l2": best,
            "seconds": self.errors[-1][0],
            "cpu_seconds": self.errors[-1][0],
            "iterations": self.iterations,
            **dict(zip(TIMES, reached, strict=True)),
        }


def ours(name: str, recipe: str, seconds: float, seed: int) -> dict[str, Any]:
    """A recipe of this package."""
    one = problem(name)
    solve("poisson-2d", settings=SolveSettings(seconds=2))
    with watched(one) as clock:
        found = solve(one, recipe=recipe, seed=seed, settings=SolveSettings(seconds=seconds)).summary()
        cpu_s = clock.cpu_s + time.process_time()
    row = {key: found[key] for key in ("relative_l2", "seconds", "iterations", "parameters")}
    row |= {column: clock.reached(tolerance) for column, tolerance in zip(TIMES, TOLERANCES, strict=True)}
    return row | {"best_l2": min(error for _, error in clock.errors), "cpu_seconds": cpu_s}


def deepxde(name: str, precision: str, seconds: float, seed: int) -> dict[str, Any]:
    """DeepXDE's usual network and two optimizers."""
    import deepxde as dde

    dde.config.set_default_float(precision)
    dde.config.set_random_seed(seed)
    one = problem(name)
    box = one.region
    assert isinstance(box, Box)
    count = one.dimension
    kinds = {1: lambda a, b: dde.geometry.Interval(a[0], b[0]), 2: dde.geometry.Rectangle, 3: dde.geometry.Cuboid}
    geometry = kinds[count](list(box.lower), list(box.upper))

    def equation(x: Tensor, y: Tensor) -> Tensor:
        gradient = torch.cat([dde.grad.jacobian(y, x, i=0, j=j) for j in range(count)], dim=1)
        second = torch.cat([dde.grad.hessian(y, x, i=j, j=j) for j in range(count)], dim=1)
        return one.residuals(Jet(y, gradient[:, None], second[:, None]), x).to(y.dtype)[:, None]  # type: ignore[union-attr]

    sets = [_deepxde_condition(dde, geometry, one, condition, seed) for condition in one.conditions]
    edge = 200 if any(condition.period for condition in one.conditions) else 0
    data = dde.data.PDE(geometry, equation, sets, num_domain=_POINTS[count], num_boundary=edge, anchors=None)
    model = dde.Model(data, dde.nn.FNN([count, 50, 50, 50, 1], "tanh", "Glorot normal"))
    clock: Clock | None = None

    class Stop(dde.callbacks.Callback):
        def __init__(self, end_s: float) -> None:
            super().__init__()
            self.end_s = end_s

        def on_epoch_end(self) -> None:
            assert clock is not None
            ended = clock.tick(lambda: torch.as_tensor(model.predict(clock.x.numpy())))
            self.model.stop_training = ended or clock.seconds > self.end_s

    model.compile("adam", lr=1e-3, verbose=0)
    clock = Clock(one, seconds)
    model.train(iterations=10**9, display_every=10**9, callbacks=[Stop(0.5 * seconds)], verbose=0)
    dde.optimizers.set_LBFGS_options(maxcor=100, ftol=0, gtol=1e-12, maxiter=10**6, maxls=50)
    dde.optimizers.LBFGS_options["iter_per_step"] = 20
    dde.optimizers.LBFGS_options["fun_per_step"] = 25
    model.compile("L-BFGS", verbose=0)
    model.train(display_every=10**9, callbacks=[Stop(seconds)], verbose=0)
    clock.look(lambda: torch.as_tensor(model.predict(clock.x.numpy())))
    note = "" if clock.seconds > 0.95 * seconds else "L-BFGS ended by itself"
    return clock.row() | {"parameters": sum(p.numel() for p in model.net.parameters()), "note": note}


def _deepxde_condition(dde: Any, geometry: Any, one: Problem, condition: Condition, seed: int) -> Any:
    """A condition of the catalogue on fixed points; periodic ones in DeepXDE's own form."""
    if condition.period is not None:
        axis = one.region.axes.index(condition.period)  # type: ignore[attr-defined]
        low = one.region.lower[axis]

        def on(x: np.ndarray, on_boundary: bool) -> bool:
            return bool(on_boundary and np.isclose(x[axis], low))

        order = 1 if "slope" in condition.name else 0
        return dde.icbc.PeriodicBC(geometry, axis, on, derivative_order=order)
    total = {1: 2, 2: 256, 3: 768}[one.dimension]
    points, _ = boundary_points(one, condition, Points(1, total, "random", seed))

    def miss(x: Tensor, y: Tensor, _: Any) -> Tensor:
        return condition.residual(Jet(y, y[:, None], y[:, None]), Side(x, x)).to(y.dtype)[:, None]

    return dde.icbc.PointSetOperatorBC(points, np.zeros((len(points), 1)), miss)


def scimba(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Scimba's usual network by its natural gradient."""
    import contextlib
    import io

    torch.manual_seed(seed)
    one = problem(name)
    if any(condition.period for condition in one.conditions):
        return {"note": "no periodic condition for weak boundaries"}
    solver = _scimba_solver(one)
    space = solver.space
    clock = Clock(one, seconds)
    from scimba_torch.utils.scimba_tensors import LabelTensor

    def values() -> Tensor:
        parts = [space.evaluate(LabelTensor(x), LabelTensor(torch.zeros(len(x), 0))).w for x in clock.x.split(4096)]
        return torch.cat(parts).detach()

    kept = solver.losses.update_histories

    def after_epoch(*given: Any, **named: Any) -> None:
        kept(*given, **named)
        if clock.tick(values):
            raise TimeUp

    solver.losses.update_histories = after_epoch
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(TimeUp):
        boundary = {1: 2, 2: 256, 3: 768}[one.dimension]
        named = {"n_collocation": _POINTS[one.dimension], "n_bc_collocation": boundary}
        solver.solve(epochs=10**6, silent=True, **named)
    if not clock.errors:
        clock.look(values)
    return clock.row() | {"parameters": space.ndof}


def _scimba_solver(one: Problem) -> Any:
    """The problem in Scimba's strong form: the whole residual is the operator, the right side zero."""
    from scimba_torch.approximation_space.nn_space import NNxSpace
    from scimba_torch.domain.meshless_domain.domain_1d import Segment1D
    from scimba_torch.domain.meshless_domain.domain_2d import Square2D
    from scimba_torch.domain.meshless_domain.domain_3d import Cube3D
    from scimba_torch.integration.monte_carlo import DomainSampler, TensorizedSampler
    from scimba_torch.integration.monte_carlo_parameters import UniformParametricSampler
    from scimba_torch.neural_nets.coordinates_based_nets.mlp import GenericMLP
    from scimba_torch.numerical_solvers.elliptic_pde.pinns import NaturalGradientPinnsElliptic
    from scimba_torch.physical_models.elliptic_pde.abstract_elliptic_pde import StrongFormEllipticPDE

    torch.set_default_dtype(torch.float64)
    count = one.dimension
    bounds = list(zip(one.region.lower, one.region.upper, strict=True))
    kind = {1: lambda b, **k: Segment1D(b[0], **k), 2: Square2D, 3: Cube3D}[count]
    domain = kind(bounds, is_main_domain=True)
    sampler = TensorizedSampler([DomainSampler(domain), UniformParametricSampler([])])
    space = NNxSpace(1, 0, GenericMLP, domain, sampler, layer_sizes=[20, 20, 20], activation_type="tanh")

    def boundary(value: Tensor, x: Tensor) -> Tensor:
        """What conditions miss at points (..., d) of the boundary, each on its own parts."""
        total = torch.zeros_like(value[..., 0])
        for condition in one.conditions:
            jet = Jet(value, value.unsqueeze(-1), value.unsqueeze(-1))
            found, on = condition.residual(jet, Side(x, x)), torch.zeros_like(value[..., 0], dtype=torch.bool)
            for part in condition.on or one.region.walls:
                axis, end = one.region.side(part)  # type: ignore[attr-defined]
                place = (one.region.upper if end else one.region.lower)[axis]
                on = on | ((x[..., axis] - place).abs() < 1e-9)
            total = total + torch.where(on, found, torch.zeros_like(found))
        return total.unsqueeze(-1)

    class Equation(StrongFormEllipticPDE):
        def rhs(self, w: Any, x: Any, mu: Any) -> Tensor:
            return torch.zeros_like(w.w)

        def bc_rhs(self, w: Any, x: Any, n: Any, mu: Any) -> Tensor:
            return torch.zeros_like(w.w)

        def operator(self, w: Any, x: Any, mu: Any) -> Tensor:
            gradient = _parts(self.grad(w.get_components(), x), count)
            second = [_parts(self.grad(gradient[j], x), count)[j] for j in range(count)]
            jet = Jet(w.w, torch.cat(gradient, dim=1)[:, None], torch.cat(second, dim=1)[:, None])
            return one.residuals(jet, x.x)[:, None]  # type: ignore[index]

        def bc_operator(self, w: Any, x: Any, n: Any, mu: Any) -> Tensor:
            return boundary(w.w, x.x)

        def functional_operator(self, func: Any, x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
            slope = torch.func.jacrev(func, 0)
            hessian = torch.func.jacrev(slope, 0)(x, mu, theta)
            jet = Jet(func(x, mu, theta), slope(x, mu, theta), hessian.diagonal(dim1=-2, dim2=-1))
            return one.residuals(jet, x).unsqueeze(-1)  # type: ignore[union-attr]

        def functional_operator_bc(self, func: Any, x: Tensor, n: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
            return boundary(func(x, mu, theta), x)

    equation = Equation(space, residual_size=1, bc_residual_size=1)
    # with its own default, 1e-6, the Gram matrix becomes singular on these problems; 1e-5 and 1e-3 end within a factor of 3
    return NaturalGradientPinnsElliptic(equation, bc_type="weak", matrix_regularization=1e-5)


def _parts(found: Any, count: int) -> list[Tensor]:
    return [found] if count == 1 else list(found)


METHODS: dict[str, tuple[str, Callable[[str, float, int], dict[str, Any]]]] = {
    "default": ("cpikan", lambda name, s, seed: ours(name, "default", s, seed)),
    "paper": ("cpikan", lambda name, s, seed: ours(name, "paper", s, seed)),
    "DeepXDE float32": ("deepxde", lambda name, s, seed: deepxde(name, "float32", s, seed)),
    "DeepXDE float64": ("deepxde", lambda name, s, seed: deepxde(name, "float64", s, seed)),
    "Scimba ENG": ("scimba_torch", lambda name, s, seed: scimba(name, s, seed)),
}
_DISTRIBUTIONS = {"cpikan": "scaled-cpikan", "deepxde": "deepxde", "scimba_torch": "scimba"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there, add those that are not")
    parser.add_argument("--worker", metavar="METHOD", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.worker:
        print(json.dumps(METHODS[given.worker][1](given.problems[0], given.seconds, given.seed)))
        return
    there = []
    if given.resume and given.output.exists():
        with open(given.output, newline="", encoding="utf-8") as file:
            there = list(csv.DictReader(file))
    done = {(row["problem"], row["method"]) for row in there}
    for package in dict.fromkeys(METHODS[name][0] for name in given.methods):
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed: left out (pip install -e .[bench])", file=sys.stderr)
    with open(given.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(there)
        for name in given.problems:
            for method in given.methods:
                package = METHODS[method][0]
                if (name, method) in done or importlib.util.find_spec(package) is None:
                    continue
                row = in_process(name, method, given)
                row |= {"problem": name, "method": method, "seed": given.seed, "limit_seconds": given.seconds}
                row["version"] = importlib.metadata.version(_DISTRIBUTIONS[package])
                writer.writerow({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()})
                file.flush()
                told = f"{row.get('relative_l2', float('nan')):9.2e} {row.get('seconds', 0.0):7.2f} s"
                print(f"{name:20} {method:18} {told} {row.get('note', '')}", flush=True)


def in_process(name: str, method: str, given: argparse.Namespace) -> dict[str, Any]:
    """One solve in a process of its own; a note instead of figures where it fails."""
    command = [sys.executable, __file__, name, "--worker", method]
    command += ["--seconds", str(given.seconds), "--seed", str(given.seed)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20 * given.seconds + 120, check=False)
    except subprocess.TimeoutExpired:
        return {"note": "did not stop"}
    if ended.returncode:
        return {"note": f"failed: {(ended.stderr.strip().splitlines() or ['no message'])[-1][:120]}"}
    return dict(json.loads(ended.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
