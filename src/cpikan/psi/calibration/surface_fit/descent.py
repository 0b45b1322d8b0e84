"""Descent from starts to minima, coarse terms before fine ones, and a network in the place of the series."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.levenberg_marquardt import Settings, minimise
from cpikan.learning.normal_equations import NormalEquations
from cpikan.learning.robust import Huber
from cpikan.psi.calibration.smooth_terms import features
from cpikan.psi.calibration.surface_fit.frame_residuals import FrameResiduals, NetworkPhase
from cpikan.psi.calibration.surface_fit.problem import Degrees, Problem, Samples, Spreads, frame_residuals, moved
from cpikan.psi.calibration.surface_fit.starts import Candidate

_LEVEL = Degrees(10, 12)  # where candidates are compared
_FIRST = Degrees(6, 8)
_BEHIND = 8.0  # a candidate whose cost is so many times the best's on the first level is left
_SETTINGS = Settings(40, cost=1e-5, step=1e-7, gradient=1e-8)
_NETWORK_SETTINGS = Settings(15, cost=1e-4, step=1e-6, gradient=1e-8)
_NETWORK_PIXELS = 2500
ROBUST = Huber(3.0)  # of a thousand samples with normal noise three are beyond
_NETWORK_WIDTHS, _NETWORK_DEGREE = [2, 6, 6, 1], 4
_RIDGE = 1e-6
_NETWORK_BASE = 4  # degree of the polynomial that a network corrects


@dataclass(frozen=True)
class LocalMinimum:
    """A minimum: its model, parameters (P,), twice its cost per degree of freedom, and the LM iterations."""

    model: FrameResiduals
    degrees: Degrees
    parameters: Tensor
    chi2: float
    iterations: int
    source: str

    @property
    def phase_rad(self) -> np.ndarray:
        """Evaluate the phase in rad at the samples, (B,)."""
        form = self.model.layout.split(self.parameters[None]).form
        return np.asarray(self.model.form.value(form)[0].numpy())


def descend_coarse_to_fine(samples: Samples, candidates: list[Candidate]) -> list[LocalMinimum]:
    """Follow candidates to a common number of terms, best first; those that fall far behind on the way are left."""
    ways = [(one, *_at_level(samples, one.degrees, one.parameters[None], _FIRST)) for one in candidates]
    if not ways:
        return []
    least = min(way[3] for way in ways)
    found = []
    for one, degrees, parameters, cost, spent in ways:
        if cost <= _BEHIND * least:
            degrees, parameters, _, more = _at_level(samples, degrees, parameters, _LEVEL)
            found.append(_made(samples, degrees, parameters, spent + more, one.source))
    return sorted(found, key=lambda one: one.chi2)


def _at_level(samples: Samples, degrees: Degrees, begun: Tensor, level: Degrees) -> tuple[Degrees, Tensor, float, int]:
    """Minimise at a level: degrees, parameters (1, P), cost, iterations; unchanged where the start has more terms."""
    if level.form < degrees.form:
        return degrees, begun, float(Problem(frame_residuals(samples, degrees)).cost(begun)[0]), 0
    frames = len(samples.frames)
    begun = moved(begun, degrees.layout(frames), level.layout(frames))
    solution = minimise(Problem(frame_residuals(samples, level)), begun, _SETTINGS)
    return level, solution.parameters, float(solution.cost[0]), int(solution.iterations[0])


def _made(samples: Samples, degrees: Degrees, parameters: Tensor, spent: int, source: str) -> LocalMinimum:
    model = frame_residuals(samples, degrees)
    freedom = max(samples.frames.size - model.layout.size, 1)
    chi2 = 2 * float(Problem(model).cost(parameters)[0]) / freedom
    return LocalMinimum(model, degrees, parameters[0], chi2, spent, source)


def with_network(samples: Samples, before: LocalMinimum, spreads: Spreads, seed: int) -> LocalMinimum:
    """Fit the phase as a polynomial of degree 4 plus a Scaled-cPIKAN, both beginning where the Chebyshev fit ended."""
    samples = samples.some(_NETWORK_PIXELS)
    modes = before.model.layout.split(before.parameters[None]).form[0].clone()
    count = features(samples.points[:1], _NETWORK_BASE).shape[1]
    kept = modes[:count]

    def base(points: Tensor) -> Tensor:
        return torch.from_numpy(features(points.numpy(), _NETWORK_BASE)) @ kept

    field = ScaledCPIKAN(_NETWORK_WIDTHS, _NETWORK_DEGREE, start=Start(seed))
    points = torch.from_numpy(samples.points)
    rest = torch.from_numpy(features(samples.points, before.degrees.form)[:, count:]) @ modes[count:]
    phase = NetworkPhase(field, points, base)
    alike = _Alike(phase, base(points) + rest)  # the physics has many minima: begin where the Chebyshev fit is
    vector = minimise(alike, parameter_vector(field)[None], Settings(100, cost=1e-4)).parameters
    model = frame_residuals(samples, before.degrees, phase, spreads)
    begun = torch.cat([before.parameters[None, : -before.model.layout.form], vector], dim=1)
    solution = minimise(Problem(model, ROBUST), begun, _NETWORK_SETTINGS)
    chi2 = 2 * float(solution.cost[0]) / max(samples.frames.size - model.layout.size, 1)
    spent = before.iterations + int(solution.iterations[0])
    return LocalMinimum(model, before.degrees, solution.parameters[0], chi2, spent, before.source)


@dataclass(frozen=True)
class _Alike:
    """A phase as another one: least squares of their difference, with a weak prior on the parameters."""

    phase: NetworkPhase
    target: Tensor

    def cost(self, parameters: Tensor) -> Tensor:
        """Compute half the sum of squares of each start, (n,)."""
        off = self.phase.value(parameters) - self.target
        return 0.5 * (off * off).sum(dim=-1) + 0.5 * _RIDGE * (parameters * parameters).sum(dim=-1)

    def linearise(self, parameters: Tensor) -> NormalEquations:
        """Compute the normal equations of each start."""
        value, slopes = self.phase.jacobian(parameters)
        off = (value - self.target).unsqueeze(-2)
        matrix = slopes.mT @ slopes + _RIDGE * torch.eye(parameters.shape[1], dtype=parameters.dtype)
        return NormalEquations(self.cost(parameters), (off @ slopes).squeeze(-2) + _RIDGE * parameters, matrix)

    def take(self, index: Tensor) -> _Alike:
        """Take the starts ``index``: all starts share the target, so this problem serves them."""
        return self


def mirrored(one: LocalMinimum) -> LocalMinimum:
    """Change the sign of phase, steps and tilts: the frames are the same under a Chebyshev phase."""
    parameters = one.parameters.clone()
    for name in ("step", "tilt", "phase"):
        parameters[one.model.layout.blocks[name]] *= -1
    return replace(one, parameters=parameters)


def with_positive_fringes(one: LocalMinimum) -> LocalMinimum:
    """Make B positive: where it came out negative the phase moves by half a turn (its constant is the first term)."""
    at = one.model.layout.blocks
    if one.parameters[at["modulation"][0]] > 0:
        return one
    parameters = one.parameters.clone()
    for name in ("modulation", "harmonic2"):
        parameters[at[name]] *= -1
    parameters[at["phase"][0]] += np.pi
    return replace(one, parameters=parameters)
