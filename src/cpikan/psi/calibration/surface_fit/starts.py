"""Starts of the fit, of closed forms or random, and the descent from them to minima, coarse terms before fine ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.levenberg_marquardt import Settings, minimise
from cpikan.learning.normal_equations import NormalEquations
from cpikan.learning.robust import Huber
from cpikan.psi.calibration.smooth_terms import features, terms
from cpikan.psi.calibration.steps.fit import FitOptions, fit_phase_steps
from cpikan.psi.calibration.steps.fringes import unwrap_scattered
from cpikan.psi.calibration.steps.step_fit import StepFit
from cpikan.psi.calibration.steps.two_frames import fit_two_frames
from cpikan.psi.calibration.surface_fit.frame_residuals import FrameResiduals, NetworkPhase
from cpikan.psi.calibration.surface_fit.problem import (
    Degrees,
    Problem,
    Samples,
    Spreads,
    first_light,
    frame_residuals,
    moved,
)

RANDOM = 192
_FIRST = Degrees(1, 3, fit_tilt=False, fit_gain=False)  # of the random starts
_SECOND = Degrees(2, 4)
THIRD = Degrees(4, 6)
DETAIL = Degrees(4, 12)  # of closed forms: cut to less they may fall into a wrong minimum
_LARGEST_RAD = 25.0  # peak of a random phase's slopes and bows
_PIXELS = (300, 700, 1500)
_DETAIL_PIXELS = 3000
_PAIR_LIGHT = 2  # degree of the background from which a step is read
_KEPT = (16, 8)
_ALIKE = 1e-3  # relative difference of costs of what is one minimum


@dataclass(frozen=True)
class Candidate:
    """A start that was followed to ``degrees``: its parameters (P,), and where it came from."""

    parameters: Tensor
    degrees: Degrees
    source: str


@dataclass(frozen=True)
class ClosedForm:
    """A closed form's answer: phase terms of `DETAIL`, steps (K,), tilts (K, 2) per unit, in rad."""

    source: str
    modes: np.ndarray
    steps_rad: np.ndarray
    tilt_rad: np.ndarray


def closed_candidates(samples: Samples, closed: list[ClosedForm]) -> list[Candidate]:
    """Improve closed forms with all their detail."""
    if not closed:
        return []
    few = samples.some(_DETAIL_PIXELS)
    begun = torch.stack([_start(samples, DETAIL, one) for one in closed])
    best, cost = _improved(few, DETAIL, begun, 60)
    return [Candidate(best[i], DETAIL, closed[i].source) for i in _distinct(cost)]


def smooth_candidates(samples: Samples, closed: list[ClosedForm], seed: int) -> list[Candidate]:
    """Search smooth phases from random starts and smoothed closed forms, by rising cost, from few terms to `THIRD`."""
    few, more, most = (samples.some(count) for count in _PIXELS)
    best, cost = _improved(few, _FIRST, _random(few, seed), 40)
    keep = np.argsort(cost)[: _KEPT[0]]
    layouts = [degrees.layout(len(samples.frames)) for degrees in (_FIRST, _SECOND, THIRD)]
    begun = torch.stack(
        [*moved(best[torch.from_numpy(keep)], *layouts[:2]), *(_start(samples, _SECOND, c) for c in closed)]
    )
    names = ["random"] * len(keep) + [one.source for one in closed]
    best, cost = _improved(more, _SECOND, begun, 60)
    kept = _distinct(cost)[: _KEPT[1]]
    best, cost = _improved(most, THIRD, moved(best[torch.tensor(kept)], *layouts[1:]), 80)
    return [Candidate(best[i], THIRD, names[kept[i]]) for i in _distinct(cost)]


def _improved(samples: Samples, degrees: Degrees, begun: Tensor, iterations: int) -> tuple[Tensor, np.ndarray]:
    problem = Problem(frame_residuals(samples, degrees))
    found = minimise(problem, begun, Settings(iterations, cost=1e-4, step=1e-5, gradient=1e-7))
    cost = found.cost.numpy()
    return found.parameters, np.where(np.isfinite(cost), cost, np.inf)


def _distinct(cost: np.ndarray) -> list[int]:
    """Sort costs by rising value, without those (almost) the same as one before; returns indices."""
    kept: list[int] = []
    for i in np.argsort(cost):
        if np.isfinite(cost[i]) and not any(abs(cost[i] - cost[j]) < _ALIKE * cost[j] for j in kept):
            kept.append(int(i))
    return kept


def _random(samples: Samples, seed: int) -> Tensor:
    """Draw smooth phases of every size, with random steps where none are given: (RANDOM, P) of `_FIRST`."""
    rng = np.random.default_rng(seed)
    layout = _FIRST.layout(len(samples.frames))
    bright, power = first_light(samples)
    size = terms(_FIRST.form).sum(axis=1)
    scale = np.geomspace(1.0, _LARGEST_RAD, RANDOM)[:, None]
    phase = rng.normal(size=(RANDOM, len(size))) * scale * np.array([0.0, 1.0, 0.35, 0.1])[size]
    phase[:, 0] = rng.uniform(-np.pi, np.pi, RANDOM)
    steps = rng.uniform(0, 2 * np.pi, (RANDOM, layout.frames - 1))
    steps[:, 0] /= 2  # the convention of blind signs
    if samples.steps_rad is not None:
        steps[:] = samples.steps_rad[1:]
    light = np.zeros((RANDOM, 2 * layout.light))
    light[:, 0], light[:, layout.light] = bright, power
    return torch.from_numpy(np.concatenate([light, steps, phase], axis=1))


def _start(samples: Samples, degrees: Degrees, closed: ClosedForm) -> Tensor:
    """Convert a closed form to parameters of ``degrees`` (P,), light flat, the phase's terms cut to those."""
    layout = degrees.layout(len(samples.frames))
    bright, power = first_light(samples)
    vector, at = np.zeros(layout.size), layout.blocks
    vector[at["background"][0]], vector[at["modulation"][0]] = bright, power
    vector[at["step"]], vector[at["tilt"]] = closed.steps_rad[1:], closed.tilt_rad[1:]
    vector[at["phase"]] = closed.modes[: layout.form]
    return torch.from_numpy(vector)


def closed_forms(samples: Samples, position: np.ndarray, frames_dn: np.ndarray) -> list[ClosedForm]:
    """Apply closed forms to ``frames_dn`` (K, P) at ``position`` (P, 2), the pixels of ``samples``."""
    given = None if samples.steps_rad is None else tuple(np.degrees(samples.steps_rad))
    low, high = position.min(axis=0), position.max(axis=0)
    unit, centre = (high - low) / 2, (low + high) / 2
    found: list[ClosedForm] = []
    for name, fit in _fits(position, frames_dn, given):
        modes = _modes(samples, fit.phase_rad(frames_dn, position), position)
        steps = fit.model.steps_rad + fit.model.tilt_rad_px @ (centre - np.asarray(fit.model.pivot))
        found.append(ClosedForm(name, modes, steps, fit.model.tilt_rad_px * unit))
    if len(frames_dn) > 2:
        found += _pairs(samples, position, frames_dn, given)
    return found


def _pairs(
    samples: Samples, position: np.ndarray, frames_dn: np.ndarray, given: tuple[float, ...] | None
) -> Iterator[ClosedForm]:
    """Apply Gram-Schmidt to frame 0 and each other one; the steps of the rest follow from its phase."""
    for k in range(1, len(frames_dn)):
        try:
            fit = fit_two_frames(frames_dn[[0, k]], position, None if given is None else (given[0], given[k]))
            wrapped = fit.phase_rad(frames_dn[[0, k]], position)
        except (InputError, np.linalg.LinAlgError):
            continue
        if not np.isfinite(wrapped).all():
            continue
        fringes = np.stack([np.cos(wrapped), -np.sin(wrapped)], axis=1)
        columns = np.concatenate([features(samples.points, _PAIR_LIGHT), fringes], axis=1)
        real, imaginary = np.linalg.lstsq(columns, frames_dn.T, rcond=None)[0][-2:]
        steps = np.arctan2(imaginary, real)
        name, modes = f"Gram-Schmidt of frames 1 and {k + 1}", _modes(samples, wrapped, position)
        yield ClosedForm(name, modes, steps - steps[0], np.zeros((len(frames_dn), 2)))


def _modes(samples: Samples, wrapped_rad: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Fit the phase terms of `DETAIL` to a wrapped phase (P,) that is unwrapped first."""
    phase = unwrap_scattered(wrapped_rad, position)
    basis = features(samples.points[phase.reached], DETAIL.form)
    return np.asarray(np.linalg.lstsq(basis, phase.unwrapped_rad[phase.reached], rcond=None)[0])


def _fits(
    position: np.ndarray, frames_dn: np.ndarray, given: tuple[float, ...] | None
) -> Iterator[tuple[str, StepFit]]:
    """Fit the steps by each closed form that serves; yields its name and the fit."""
    makers: list[tuple[str, Callable[[], StepFit]]] = [
        ("tilted frames", lambda: fit_phase_steps(frames_dn, position, given, FitOptions(frozenset({"tilt"})))),
        ("even steps", lambda: fit_phase_steps(frames_dn, position, given, FitOptions(frozenset()))),
    ]
    if len(frames_dn) == 2:
        makers = [("Gram-Schmidt", lambda: fit_two_frames(frames_dn, position, given))]
    for name, make in makers:
        try:
            fit = make()
            if np.isfinite(fit.phase_rad(frames_dn, position)).all():
                yield name, fit
        except (InputError, np.linalg.LinAlgError):  # then the others must serve
            continue


_LEVEL = Degrees(10, 12)  # where candidates are compared
_FIRST_LEVEL = Degrees(6, 8)
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
    ways = [(one, *_at_level(samples, one.degrees, one.parameters[None], _FIRST_LEVEL)) for one in candidates]
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
