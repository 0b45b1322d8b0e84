"""The smooth background of a frame: Chebyshev polynomials in two coordinates whose smoothness the data decide.

Cells are fitted by least squares with a Gaussian prior on the coefficients (kriging). How they fall with the degree, and how
large they are, follows from the restricted likelihood of the same cells; every prior counts by its own (Patterson and Thompson
1971; Hoeting et al. 1999 on averaging). So a prediction across a gap comes with a sigma that knows how smooth the data are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, qr, solve_triangular
from scipy.special import logsumexp

DEGREE = 20  # total, of the polynomials
_FREE = 2  # total degree up to which coefficients have no prior
_RATIOS = (
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
)  # of coefficients from degree to degree: analytic surfaces
_POWERS = (2.0, 3.0, 4.0, 6.0)  # of the degree: surfaces with so many derivatives
_TAIL = 0.3  # from degree to degree beyond one up to which all are alike: no surface ends at a degree
_AMPLITUDES = np.logspace(-5, 1, 25)  # of the coefficients, in units of what the data scatter by
_PARTS = 24  # the largest: they say how smooth the background is
_MOST = 4_000_000  # numbers in the covariances of all priors: of many parts only the likeliest prior counts
_RIDGE = 1e-13  # of the mean information: levels that the cells do not tell are held
_LEAST_SHARE = 1e-4  # of the likeliest prior: others do not count


def exponents(degree: int) -> np.ndarray:
    """List the degrees (M, 2) in y and x of the polynomials of a total degree up to ``degree``, by total degree."""
    pairs = [(n - j, j) for n in range(degree + 1) for j in range(n + 1)]
    return np.array(pairs)


def basis(places: np.ndarray, degree: int) -> np.ndarray:
    """Evaluate the polynomials at ``places`` (N, 2) in [-1, 1], (N, M)."""
    y, x = (np.polynomial.chebyshev.chebvander(places[:, k], degree) for k in (0, 1))
    of_y, of_x = exponents(degree).T
    return np.asarray(y[:, of_y] * x[:, of_x])


@dataclass(frozen=True)
class Cells:
    """Mean values of cells: ``design`` (N, M) the means of the polynomials, ``value`` and ``sigma`` (N,) in one unit, and
    ``part`` (N,) the part of the image that each belongs to, 0, 1, ..., all of them there; ``across`` is how many lie along
    the longer side."""

    design: np.ndarray
    value: np.ndarray
    sigma: np.ndarray
    part: np.ndarray
    degree: int
    across: float

    @property
    def parts(self) -> int:
        return int(self.part.max()) + 1

    @property
    def free(self) -> int:
        """Count the polynomials whose coefficients have no prior; they come first."""
        return len(exponents(min(_FREE, self.degree)))

    def first(self, parts: int) -> Cells:
        """Take the cells of the first parts."""
        mine = self.part < parts
        return Cells(self.design[mine], self.value[mine], self.sigma[mine], self.part[mine], self.degree, self.across)


@dataclass(frozen=True)
class Levels:
    """The levels of the parts against the first under every prior: ``mean`` (P, K), ``covariance`` (P, K, K) and the log of
    the prior's share ``log_share`` (P,). ``unresolved`` is the RMS of what the surface does not follow, beyond noise."""

    mean: np.ndarray
    covariance: np.ndarray
    log_share: np.ndarray
    unresolved: float


@dataclass(frozen=True)
class _Evidence:
    """Priors that count: standard deviations (P, M - F) of the coefficients with a prior, ``noise`` (P,) the factor on the
    squared sigmas, ``shared`` (P,) that on variances of what is fitted, and the log of the priors' shares.

    What lies beyond noise is detail that the polynomials do not follow: cells share it over the length that they resolve,
    and so it averages out over so many fewer.
    """

    deviation: np.ndarray
    noise: np.ndarray
    shared: np.ndarray
    log_share: np.ndarray


def fit_levels(cells: Cells) -> Levels | None:
    """Fit the background and the levels of all parts but the first; None where the cells do not determine them."""
    evidence = _evidence(cells.first(_PARTS))
    if evidence is None:
        return None
    rest = _triangle(cells)[cells.free :, cells.free :]
    likeliest = np.argsort(-evidence.log_share)[: max(1, _MOST // cells.parts**2)]
    means, covariances = [], []
    for deviation, noise in zip(evidence.deviation[likeliest], evidence.shared[likeliest], strict=True):
        turned, square = _turned(rest, deviation)
        turned = turned / np.sqrt(1 + square)[:, None]
        across, z = turned[:, :-1], turned[:, -1]
        gram = across.T @ across
        covariance = np.linalg.inv(gram + _RIDGE * np.mean(np.diag(gram)) * np.eye(len(gram)))
        means.append(covariance @ (across.T @ z))
        covariances.append(covariance * noise)
    best = int(np.argmax(evidence.log_share))
    # whitened residuals beyond one, in units of the cells' sigma
    unresolved = np.sqrt(max(evidence.noise[best] - 1.0, 0.0) / np.mean(cells.sigma**-2.0))
    log_share = evidence.log_share[likeliest] - logsumexp(evidence.log_share[likeliest])
    return Levels(np.array(means), np.array(covariances), log_share, float(unresolved))


@dataclass(frozen=True)
class Surface:
    """The background of one part: ``coefficients`` (P, M) under every prior, a ``root`` (P, M, M) of their covariance (times
    its transpose), and the log of the prior's share ``log_share`` (P,)."""

    coefficients: np.ndarray
    root: np.ndarray
    log_share: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Average the coefficients over the priors, (M,)."""
        return np.asarray(np.exp(self.log_share) @ self.coefficients)

    def sigma(self, design: np.ndarray) -> np.ndarray:
        """Compute the standard uncertainty of the background where the polynomials are ``design`` (N, M)."""
        variance = np.zeros(len(design))
        for share, mine, root in zip(np.exp(self.log_share), self.coefficients, self.root, strict=True):
            variance += share * (((design @ root) ** 2).sum(axis=1) + (design @ (mine - self.mean)) ** 2)
        return np.sqrt(variance)


def fit_surface(cells: Cells) -> Surface | None:
    """Fit the background of cells that are all of one part; None where they are too few."""
    evidence = _evidence(cells)
    if evidence is None:
        return None
    whole, many = _triangle(cells), cells.design.shape[1]
    prior = np.eye(many)[cells.free :]
    found, roots = [], []
    for deviation, noise in zip(evidence.deviation, evidence.shared, strict=True):
        scale = np.r_[np.ones(cells.free), deviation]
        system = np.vstack([whole[:, :many] * scale, prior])
        reduced = qr(
            np.column_stack([system, np.r_[whole[:, many], np.zeros(len(prior))]]), mode="r", check_finite=False
        )[0]
        inverse = solve_triangular(reduced[:many, :many], np.eye(many), check_finite=False)
        found.append(scale * (inverse @ reduced[:many, many]))
        roots.append(np.sqrt(noise) * scale[:, None] * inverse)
    return Surface(np.array(found), np.array(roots), evidence.log_share)


def _triangle(cells: Cells) -> np.ndarray:
    """Reduce the weighted cells to a triangle of columns: free polynomials, the others, levels, values."""
    levels = cells.part[:, None] == np.arange(1, cells.parts)
    whole = np.column_stack([cells.design, levels, cells.value]) / cells.sigma[:, None]
    return np.asarray(qr(whole, mode="r", check_finite=False)[0][: whole.shape[1]])


def _turned(rest: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn levels and values (R, K + 1) to the axes of the prior's covariance at the cells, and give its variances (R,)."""
    count = len(deviation)
    top = rest[:count]  # below it the triangle has no polynomials
    prior = top[:, :count] * deviation
    values, vectors = eigh(prior @ prior.T, check_finite=False, overwrite_a=True, driver="evd")
    turned = np.vstack([vectors.T @ top[:, count:], rest[count:, count:]])
    return turned, np.r_[np.maximum(values, 0.0), np.zeros(len(rest) - len(top))]


def _evidence(cells: Cells) -> _Evidence | None:
    """Weigh the priors by their restricted likelihood; None where the cells are too few, or all the same."""
    many = len(cells.value) - cells.free - (cells.parts - 1)
    if many < 2 * cells.free:
        return None
    rest = _triangle(cells)[cells.free :, cells.free :]
    scale = float(np.linalg.norm(rest[:, -1]) / np.sqrt(many) / np.sqrt(np.mean(cells.sigma**-2.0)))
    if not np.isfinite(scale) or scale <= 0:
        return None
    deviations, noises, logs = [], [], []
    for deviation, log_prior in _shapes(cells.degree):
        turned, square = _turned(rest, deviation)
        for amplitude in scale * _AMPLITUDES:
            spread = 1 + amplitude**2 * square
            whitened = turned / np.sqrt(spread)[:, None]
            small = qr(whitened, mode="r", check_finite=False)[0]
            diagonal = np.abs(np.diag(small))
            left = float(diagonal[-1] ** 2)
            noise = max(left / many, 1.0)
            volume = np.log(spread).sum() + 2 * np.log(np.maximum(diagonal[:-1], 1e-300)).sum()
            deviations.append(amplitude * deviation)
            noises.append(noise)
            logs.append(log_prior - 0.5 * (volume + many * np.log(noise) + left / noise))
    log = np.array(logs) - logsumexp(logs)
    kept = log > log.max() + np.log(_LEAST_SHARE)
    noise = np.array(noises)[kept]
    shared = 1 + (noise - 1) * (cells.across / cells.degree + 1) ** 2
    return _Evidence(np.array(deviations)[kept], noise, shared, log[kept] - logsumexp(log[kept]))


def _shapes(degree: int) -> list[tuple[np.ndarray, float]]:
    """List relative standard deviations of the coefficients with a prior, and the log of what each shape counts before."""
    total = exponents(degree).sum(axis=1)
    n = total[total > _FREE].astype(float)
    geometric = [ratio ** (n - _FREE - 1) for ratio in _RATIOS]
    algebraic = [(n / (_FREE + 1)) ** -power for power in _POWERS]
    cut = [_TAIL ** np.maximum(n - last, 0.0) for last in range(_FREE + 1, degree)]
    return [(one, -np.log(3 * len(family))) for family in (geometric, algebraic, cut) for one in family]
