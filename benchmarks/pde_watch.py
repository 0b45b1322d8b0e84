"""Watching a solve from outside: the error against the reference whenever the state gets better, with the clock stopped.

Also the unscaled network, and the targets that the catalogue's problems are measured against.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.protocol import Jet, Second
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning import solver
from cpikan.learning.runner import Runner
from cpikan.physics.problem import Problem

TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
_LOOKED_AT = 2000  # test points of the errors on the way; the final one is taken on all of them

TARGETS: dict[str, tuple[float, float]] = {  # relative L2 (of a coefficient: relative error), seconds
    "helmholtz-1d": (1e-10, 5),
    "helmholtz-1d-k4pi": (1e-10, 5),
    "helmholtz-2d-1-4": (1e-7, 20),
    "poisson-3d": (1e-7, 20),
    "poisson-3d-mixed": (1e-7, 20),
    "poisson-disc": (1e-6, 60),
    "poisson-lshape": (1e-4, 60),
    "diffusion": (1e-8, 30),
    "diffusion-600": (1e-8, 30),
    "burgers": (1e-5, 300),
    "allen-cahn": (1e-4, 600),
    "reaction-diffusion": (1e-6, 60),
    "reaction-diffusion-inverse-noise5": (1e-2, 60),
}
WITHOUT_LAST_LAYER = (1e-6, 10.0)  # the same for recipes that never solve for the output layer


@dataclass
class ErrorClock:
    """Errors of the best state so far, (seconds of the solve's clock, relative L2), and processor seconds without those of
    measuring."""

    problem: Problem
    errors: list[tuple[float, float]] = field(default_factory=list)
    run: Any = None
    cpu_s: float = 0.0
    points: Tensor = field(init=False)
    truth: Tensor = field(init=False)

    def __post_init__(self) -> None:
        everywhere = solver.test_points(self.problem)
        chosen = torch.randperm(len(everywhere), generator=torch.Generator().manual_seed(0))[:_LOOKED_AT]
        self.points = everywhere[chosen]
        self.truth = self.problem.reference_values(self.points)

    def error(self, values: Tensor) -> float:
        """The largest relative L2 error over outputs that are no coefficients."""
        keep = [o for o in range(self.truth.shape[1]) if o not in self.problem.constants]
        miss = (values[:, keep] - self.truth[:, keep]).norm(dim=0) / self.truth[:, keep].norm(dim=0).clamp_min(1e-300)
        return float(miss.max())

    def reached(self, tolerance: float) -> float | None:
        """Seconds at which the error was first at or below a tolerance."""
        return next((seconds for seconds, error in self.errors if error <= tolerance), None)


@contextmanager
def watched(problem: Problem) -> Iterator[ErrorClock]:
    """Solves in this block take the error whenever their held-out residual falls; that time is given back to them."""
    clock = ErrorClock(problem)

    class Watched(Runner):
        def keep_best(self) -> float:
            before = self.iterate.best_cost
            found = super().keep_best()
            if self.iterate.best_cost < before:
                begun, cpu = self._now(), time.process_time()
                with torch.no_grad():
                    error = clock.error(solver.evaluate(self.iterate.field, clock.points))
                clock.errors.append((begun - self.started, error))
                took = self._now() - begun
                self.started += took  # the end of the time given moves with it
                clock.cpu_s -= time.process_time() - cpu
            return found

    def make(*given: Any, **named: Any) -> Runner:
        clock.run = Watched(*given, **named)
        clock.cpu_s -= time.process_time()
        return clock.run

    with mock.patch.object(solver, "Runner", make):
        yield clock


def points_at_once(solution: solver.Solution, run: Runner) -> int:
    """Interior points of the largest system that was solved: for a march those of one slab, each with two per axis more
    than it has modes."""
    if isinstance(solution.field, PiecewiseChebyshev):
        parts = solution.field.parts
        nx, nt = (modes + 2 for modes in parts.modes)
        _, intervals = parts.scaling.lower[:, 1].unique(return_counts=True)
        return int(intervals.max()) * nx * nt
    return len(run.iterate.objective.sets["equation"].points)


class Unscaled(nn.Module):
    """A Chebyshev network on [-1, 1] per axis, given tanh of the physical coordinates, which are not scaled to a box
    before: tanh saturates beyond a few units, and what lies there cannot be told apart."""

    networks = None

    def __init__(self, inner: ScaledCPIKAN) -> None:
        super().__init__()
        self.inner = inner

    @property
    def dimension(self) -> int:
        return self.inner.dimension

    @property
    def outputs(self) -> int:
        return self.inner.outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.tanh(x))

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        return _by_tanh(self.inner.jet(torch.tanh(x), second), torch.tanh(x))

    def features(self, x: Tensor) -> Tensor:
        return self.inner.features(torch.tanh(x))

    def features_jet(self, x: Tensor, second: Second = "axes") -> Jet:
        return _by_tanh(self.inner.features_jet(torch.tanh(x), second), torch.tanh(x))

    def output_coefficients(self) -> Tensor:
        return self.inner.output_coefficients()

    def set_output_coefficients(self, coefficients: Tensor) -> None:
        self.inner.set_output_coefficients(coefficients)


def _by_tanh(jet: Jet, z: Tensor) -> Jet:
    """A jet by z = tanh(x), with second derivatives by axis or none, as one by x."""
    slope = (1 - z * z).unsqueeze(-2)
    bend = -2 * z.unsqueeze(-2) * slope
    second = jet.second * slope**2 + jet.gradient * bend if jet.second.shape[-1] else jet.second
    return Jet(jet.value, jet.gradient * slope, second)
