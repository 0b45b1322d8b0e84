"""Evidence: the size of the terms of light and phase (hyperparameters), and the comparison of minima.

About a minimum the data's half of the cost is a quadratic form, p'Hp / 2 - b'p, so that the evidence of a Gaussian prior is
known in closed form. Six hyperparameters are its logarithmic spreads: of A, B and phase, for the first degree and for what a
further degree adds (type-II maximum likelihood: MacKay, Neural Comput. 4, 415 (1992))."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from cpikan.learning.robust import Loss
from cpikan.psi.calibration.smooth_terms import terms
from cpikan.psi.calibration.surface_fit.frame_residuals import FrameResiduals
from cpikan.psi.calibration.surface_fit.problem import ROUGH_DEGREE, Degrees, Spreads, first_light_of

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
