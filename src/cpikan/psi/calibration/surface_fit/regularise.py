"""Regularised fits: minima under priors whose size the frames show, with as many terms as held-out pixels support."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from torch import Tensor

from cpikan.learning.levenberg_marquardt import Settings, minimise
from cpikan.learning.robust import Loss
from cpikan.psi.calibration.smooth_terms import terms
from cpikan.psi.calibration.surface_fit.frame_residuals import FrameResiduals
from cpikan.psi.calibration.surface_fit.problem import (
    ROUGH_DEGREE,
    Degrees,
    Problem,
    Samples,
    Spreads,
    first_light_of,
    frame_residuals,
    moved,
)
from cpikan.psi.calibration.surface_fit.starts import ROBUST, LocalMinimum
from cpikan.psi.model.noise import SIGMA_PER_MAD

# of the logarithm of the first degree's standard deviation, and of what a further degree adds: mean and deviation
_BELIEF = (np.array([[-2.5, -0.7], [-2.5, -0.7], [1.0, -0.7]]), np.array([1.5, 0.4]))
_BOUNDS = ((-9.0, 3.0), (-3.0, 0.0))
_STEP = 0.05
_POWER = 3.0  # of the other law, a power of the degree: the same belief is then one of d^(-2 +- 1)
_CELLS = (8, 16, 32)  # along each side, for what residuals have in common with their neighbours


@dataclass(frozen=True)
class SpreadProblem:
    """The search for spreads about a minimum, where the data's half of the cost is p'Hp / 2 - b'p, H ``matrix``, b ``rhs``.

    The standard deviation of a term falls by the same factor from degree to degree. ``mean`` and ``fixed`` (P,) are the
    prior's, ``before`` the spreads under which the minimum was found.
    """

    matrix: np.ndarray
    rhs: np.ndarray
    mean: np.ndarray
    fixed: np.ndarray
    field: np.ndarray  # (P,) 0 to 2: A, B, phase; -1 where the spread is not asked for
    degree_minus_one: np.ndarray  # (P,) degree less one
    unit: np.ndarray  # (P,) what a spread of one stands for
    before: Spreads
    temperature: float

    def spreads(self) -> Spreads:
        """Find the spreads of the largest evidence."""
        begun = _BELIEF[0] if self.before.logs is None else self.before.logs
        return Spreads(self.best(begun.ravel()).reshape(3, 2), self.temperature)

    def hyperparameter_scatter(self, spreads: Spreads) -> np.ndarray:
        """Compute the scatter of the parameters because the spreads are uncertain: (P, 7), a root of their covariance.

        Six columns are their standard errors, one what a power of the degree makes of the same frames.
        """
        assert spreads.logs is not None
        found = spreads.logs.ravel()
        powers = replace(self, degree_minus_one=_POWER * np.log(self.degree_minus_one + 1.0))
        other = powers.at(powers.best(_BELIEF[0].ravel()))[2] - self.at(found)[2]
        return np.column_stack([self.hyperparameter_jacobian(found), other])

    def at(self, logs: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, bool], np.ndarray]:
        """Solve for precisions of the prior, factor of the whole matrix and best parameters under spreads (6,)."""
        rows = logs.reshape(3, 2)
        spread = np.exp(rows[self.field, 0] + rows[self.field, 1] * self.degree_minus_one) * self.unit
        precision = np.where(self.field >= 0, spread**-2.0, self.fixed)
        factor = cho_factor(self.matrix + np.diag(precision), lower=True)
        return precision, factor, cho_solve(factor, self.rhs + precision * self.mean)

    def negative_evidence(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute minus the logarithm of the evidence of spreads (6,), with their belief, and its gradient."""
        rows, asked = logs.reshape(3, 2), self.field >= 0
        precision, factor, found = self.at(logs)
        right = self.rhs + precision * self.mean
        value = 0.5 * float(right @ found - (precision * self.mean**2).sum() + np.log(precision).sum())
        value -= float(np.log(np.diag(factor[0])).sum())
        scatter = np.diag(cho_solve(factor, np.eye(len(right))))
        slope = np.where(
            asked, precision * (scatter + (found - self.mean) ** 2) - 1.0, 0.0
        )  # by the spread's logarithm
        gradient = np.array(
            [[slope[self.field == i].sum(), (slope * self.degree_minus_one)[self.field == i].sum()] for i in range(3)]
        )
        mean, width = _BELIEF
        off = (rows - mean) / width
        return 0.5 * float((off**2).sum()) - value, (off / width - gradient).ravel()

    def best(self, begun: np.ndarray) -> np.ndarray:
        """Find the spreads (6,) of the largest evidence."""
        found = minimize(
            self.negative_evidence, begun, jac=True, method="L-BFGS-B", bounds=_BOUNDS * 3, options={"maxiter": 40}
        )
        return np.asarray(found.x)

    def hyperparameter_jacobian(self, logs: np.ndarray) -> np.ndarray:
        """Differentiate the best parameters by the spreads, in units of the spreads' standard errors, (P, 6).

        What an empirical prior leaves out of the posterior (Kass and Steffey, J. Am. Stat. Assoc. 84, 717 (1989)).
        """
        moves, curvature = [], []
        for i in range(6):
            off = np.zeros(6)
            off[i] = _STEP
            moves.append((self.at(logs + off)[2] - self.at(logs - off)[2]) / (2 * _STEP))
            slopes = [self.negative_evidence(logs + sign * off)[1] for sign in (1, -1)]
            curvature.append((slopes[0] - slopes[1]) / (2 * _STEP))
        values, vectors = np.linalg.eigh((np.array(curvature) + np.transpose(curvature)) / 2)
        # no direction is known worse than was believed
        values = np.maximum(values, float(_BELIEF[1].max()) ** -2)
        return np.asarray(np.transpose(moves) @ vectors * values**-0.5)


def spread_problem(
    model: FrameResiduals, degrees: Degrees, parameters: np.ndarray, loss: Loss, spreads: Spreads, temperature: float
) -> SpreadProblem:
    """Set up the search for spreads about a minimum ``parameters`` (P,) found under ``spreads``."""
    point = torch.from_numpy(parameters)[None]
    _, gradient, matrix = (part[0].numpy() for part in model.normal(point, loss))
    precision, mean = model.precision.numpy(), model.mean.numpy()
    data = (matrix - np.diag(precision)) / temperature
    slope = (gradient - precision * (parameters - mean)) / temperature
    field, degree = np.full(model.layout.size, -1), np.ones(model.layout.size)
    asked = (("background", degrees.light, 1), ("modulation", degrees.light, 1), ("phase", degrees.form, ROUGH_DEGREE))
    for i, (name, highest, lowest) in enumerate(asked):
        place, total = model.layout.blocks[name], terms(highest).sum(axis=1)
        field[place], degree[place] = np.where(total >= lowest, i, -1), total
    bright, power = first_light_of(model.frames.numpy())
    unit = np.select([field == 0, field == 1], [abs(bright), power], 1.0)
    degree_minus_one = np.maximum(degree - 1.0, 0.0)
    fixed = precision / spreads.temperature
    rhs = data @ parameters - slope
    return SpreadProblem(data, rhs, mean, fixed, field, degree_minus_one, unit, spreads, temperature)


def log_evidence(model: FrameResiduals, parameters: np.ndarray, loss: Loss, temperature: float) -> float:
    """Compute the log evidence of the model under its prior by Laplace's approximation, up to a constant."""
    cost, _, matrix = (part[0] for part in model.normal(torch.from_numpy(parameters)[None], loss))
    root = model.precision.rsqrt()
    _, logdet = torch.linalg.slogdet(matrix * root[:, None] * root)  # with the prior's precision as the unit
    return float(-cost / temperature - 0.5 * logdet)


@dataclass(frozen=True)
class ResidualDiagnostics:
    """``chi2``: mean square of what is left over; ``temperature``: the same where samples near each other err together, as
    the sums over parts of the field show it, at least one; ``unevenness``: power of such sums over large parts over that
    over small ones, one where what is left over is noise, or detail smaller than the small parts."""

    chi2: float
    temperature: float
    unevenness: float


def residual_diagnostics(model: FrameResiduals, parameters: np.ndarray, loss: Loss) -> ResidualDiagnostics:
    """Diagnose the residuals at ``parameters`` (P,)."""
    point = torch.from_numpy(parameters)[None]
    rest = model.residuals(point)[0]
    chi2 = float(2 * loss.value(rest).sum()) / max(rest.numel() - model.layout.size, 1)
    left = (rest * loss.weight(rest)).numpy()
    phase = model.form.value(model.layout.split(point).form)[0].numpy()
    power = {}
    for cells in _CELLS:
        cell = ((model.points.numpy() + 1) / 2 * cells).astype(int).clip(0, cells - 1) @ [cells, 1]
        sums = [
            sum(float((np.bincount(cell, row * lean) ** 2).sum()) for row in left) / float((left**2).sum() + 1e-300)
            for lean in (np.ones_like(phase), np.sqrt(2) * np.cos(phase), np.sqrt(2) * np.sin(phase))
        ]
        power[cells] = max(sums)
    return ResidualDiagnostics(chi2, max(1.0, chi2 * max(1.0, *power.values())), power[_CELLS[0]] / power[_CELLS[-1]])


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
