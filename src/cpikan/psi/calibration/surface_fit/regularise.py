"""Regularised fits: minima under priors whose size the frames show, with as many terms as held-out pixels support."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpikan.learning.levenberg_marquardt import Settings, minimise
from cpikan.psi.calibration.surface_fit.descent import ROBUST, LocalMinimum
from cpikan.psi.calibration.surface_fit.evidence import log_evidence, residual_diagnostics, spread_problem
from cpikan.psi.calibration.surface_fit.problem import Degrees, Problem, Samples, Spreads, frame_residuals, moved
from cpikan.psi.model.noise import SIGMA_PER_MAD

DEGREES = Degrees(12, 12)
_MORE = (Degrees(12, 16), Degrees(12, 20))  # of the best, while pixels outside the fit support them
_SUPPORT = 0.995  # of the chi squared of those pixels
_FEW_SAMPLES = 8  # per parameter
_ROUNDS = 3  # of spreads and minima in turn
_BENT_GAIN = 0.05  # relative fall of the cost that a second harmonic must bring
_SETTINGS = Settings(40, cost=1e-6, step=1e-7, gradient=1e-8)
_ROUGH = 1.15  # chi squared from which the unit of noise is that of what is left over


@dataclass(frozen=True)
class RegularisedFit:
    """A minimum under the spreads of its own terms, in units of ``unit`` times the noise of a sample.

    ``covariance`` (P, P) of all parameters; ``chi2`` of the fitted and ``held_chi2`` of other pixels, in the noise of a
    sample; ``temperature`` what squares are worth less than they seem; ``unevenness`` the power of what is left over at the
    scale of an eighth of the field over that at a 32nd: about one where it is noise or detail; ``agreeing`` how many starts
    came to it.
    """

    minimum: LocalMinimum
    spreads: Spreads
    covariance: np.ndarray
    chi2: float
    held_chi2: float
    temperature: float
    unevenness: float
    unit: float
    agreeing: int = 1

    @property
    def sigma_rad(self) -> float:
        """Compute the RMS over the samples of the standard deviation of the phase about its mean, in rad."""
        layout, form = self.minimum.model.layout, self.minimum.parameters
        slopes = self.minimum.model.form.jacobian(layout.split(form[None]).form)[1][0].numpy()
        off = slopes - slopes.mean(axis=0)
        part = self.covariance[-layout.form :, -layout.form :]
        return float(np.sqrt(np.mean(((off @ part) * off).sum(axis=1))))

    def evidence(self, temperature: float) -> float:
        """Compute the logarithm of the evidence, at a temperature shared by all fits that are compared."""
        return log_evidence(self.minimum.model, self.minimum.parameters.numpy(), ROBUST, temperature)


@dataclass(frozen=True)
class Pixels:
    """Pixels of the fit, others to judge it by, and the unit of both in noise of a sample."""

    fitted: Samples
    held: Samples
    unit: float = 1.0

    def in_unit_of(self, best: LocalMinimum) -> Pixels:
        """Rescale to units of what ``best`` leaves over, where that is more than noise.

        Detail and light that no smooth term follows are then what is expected, and not outliers.
        """
        rest = best.model.residuals(best.parameters[None])[0]
        unit = SIGMA_PER_MAD * float(rest.abs().median())
        if unit**2 < _ROUGH:
            return self
        fitted, held = (replace(part, frames=part.frames / unit) for part in (self.fitted, self.held))
        return Pixels(fitted, held, unit * self.unit)


def rescaled(minimum: LocalMinimum, unit: float) -> Tensor:
    """Rescale the parameters (P,) of a minimum for frames in another unit."""
    parameters = minimum.parameters.clone()
    for name in ("background", "modulation"):
        parameters[minimum.model.layout.blocks[name]] /= unit
    return parameters


def needs_harmonic(pixels: Pixels, minimum: LocalMinimum) -> bool:
    """Test whether a second harmonic lowers the cost of a minimum by more than 5 %."""
    costs = []
    for has_second_harmonic in (False, True):
        degrees = replace(minimum.degrees, has_second_harmonic=has_second_harmonic)
        parameters = rescaled(minimum, pixels.unit)[None]
        parameters = moved(parameters, minimum.model.layout, degrees.layout(len(pixels.fitted.frames)))
        problem = Problem(frame_residuals(pixels.fitted, degrees), ROBUST)
        costs.append(float(minimise(problem, parameters, _SETTINGS).cost[0]))
    return costs[1] < (1 - _BENT_GAIN) * costs[0]


def refine_with_prior(pixels: Pixels, minimum: LocalMinimum, degrees: Degrees) -> RegularisedFit:
    """Refine a minimum with the terms of ``degrees`` and a prior whose size the frames show."""
    before = minimum.model.layout
    parameters = moved(rescaled(minimum, pixels.unit)[None], before, degrees.layout(before.frames))
    return _regularised(pixels, replace(minimum, degrees=degrees, parameters=parameters[0]), Spreads())


def with_more_terms(pixels: Pixels, best: RegularisedFit) -> RegularisedFit:
    """Add terms to a fit while pixels that are not in it are predicted better by them."""
    for level in _MORE:
        degrees = replace(level, has_second_harmonic=best.minimum.degrees.has_second_harmonic)
        frames = len(pixels.fitted.frames)
        before, after = best.minimum.model.layout, degrees.layout(frames)
        if after.size * _FEW_SAMPLES > pixels.fitted.frames.size or best.chi2 < _ROUGH:
            break
        parameters = moved(best.minimum.parameters[None], before, after)[0]
        tried = _regularised(pixels, replace(best.minimum, degrees=degrees, parameters=parameters), best.spreads)
        if not tried.held_chi2 < _SUPPORT * best.held_chi2:
            break
        best = tried
    return best


def _regularised(pixels: Pixels, begun: LocalMinimum, spreads: Spreads) -> RegularisedFit:
    samples, degrees, parameters = pixels.fitted, begun.degrees, begun.parameters
    spent = begun.iterations
    for turn in range(_ROUNDS + 1):
        model = frame_residuals(samples, degrees, spreads=spreads)
        solution = minimise(Problem(model, ROBUST), parameters[None], _SETTINGS)
        parameters, spent = solution.parameters[0], spent + int(solution.iterations[0])
        diagnostics = residual_diagnostics(model, parameters.numpy(), ROBUST)
        if turn < _ROUNDS:
            problem = spread_problem(model, degrees, parameters.numpy(), ROBUST, spreads, diagnostics.temperature)
            spreads = problem.spreads()
    scatter = problem.hyperparameter_scatter(spreads)
    minimum = LocalMinimum(model, degrees, parameters, diagnostics.chi2, spent, begun.source)
    return RegularisedFit(
        minimum,
        spreads,
        covariance_of(minimum, spreads.temperature) + scatter @ scatter.T,
        diagnostics.chi2 * pixels.unit**2,
        _held_chi2(pixels.held, minimum) * pixels.unit**2,
        diagnostics.temperature,
        diagnostics.unevenness,
        pixels.unit,
    )


def covariance_of(minimum: LocalMinimum, temperature: float) -> np.ndarray:
    """Compute the covariance of the parameters (P, P): the inverse of J'WJ and the prior, times ``temperature``."""
    matrix = minimum.model.normal(minimum.parameters[None], ROBUST)[2][0]
    root = matrix.diagonal().rsqrt()
    inverse = torch.linalg.inv(matrix * root[:, None] * root)
    return np.asarray((inverse * root[:, None] * root * temperature).numpy())


def _held_chi2(held: Samples, minimum: LocalMinimum) -> float:
    """Average the squared robust residuals of pixels that were not fitted; where there are none, those of the fit."""
    if not len(held.points):
        return minimum.chi2
    model = frame_residuals(held, minimum.degrees)
    return float(2 * ROBUST.value(model.residuals(minimum.parameters[None])).mean())
