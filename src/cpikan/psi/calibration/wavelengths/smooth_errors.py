"""Smooth errors between wavelengths: what a lens that focuses colours apart, or a part that moved, adds to the phases of one.

They are fitted to what the wavelengths leave over, as polynomials of the field up to the fourth degree (defocus, astigmatism,
coma, spherical), growing outward from one pixel: near it all errors are small, and no order is taken for another. What one
common height could explain stays with the height.
"""

from __future__ import annotations

import numpy as np

from cpikan.psi.calibration.wavelengths.alignment import Guess, Samples, Search, decode, subset, thin

DEGREE = 4
_GROWTH = (
    (0.12, 1),
    (0.2, 1),
    (0.3, 2),
    (0.42, 2),
    (0.56, 2),
    (0.75, 3),
    (1.0, 3),
    (1.0, 4),
    (1.0, 4),
)  # reach, degree
_FEWEST = 150  # pixels of a region
_DECIDE = 1500
_ORIGINS = 16
_EXPLAINED, _CLEARLY = 0.05, 4.0  # share of the power that one wavelength leaves, and times it what the next one leaves
_LOOSE_TURNS = 0.008  # of the phases while the terms are not known yet
_OUTLIER_TURNS = 0.2


def powers(degree: int) -> list[tuple[int, int]]:
    """List the powers (i, j) of y and x with i + j <= ``degree``."""
    return [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]


def smooth_errors(samples: Samples, search: Search, span: float, scale: float) -> np.ndarray:
    """Fit polynomials (L, 5, 5) in turns, of y and x over ``scale``, to what the wavelengths leave over a range ``span``.

    The piston and the plane are among them. The best of several origins is taken.
    """
    total = (samples.ratio[:, None] ** 2 / samples.variance).sum(axis=0)
    good = np.argsort(-total, kind="stable")[: max(1, total.size // 2)]
    radius = np.sqrt((samples.position[good] ** 2).sum(axis=1))
    inner = good[np.argsort(radius, kind="stable")[: max(1, good.size // 2)]]  # growth reaches all sides from within
    origins = inner[np.linspace(0, inner.size - 1, min(_ORIGINS, inner.size)).astype(int)]
    found = [_grown(samples, search, span, scale, int(origin)) for origin in origins]
    return min(found, key=lambda one: one[0])[1]


def blamed(errors: np.ndarray, samples: Samples, scale: float) -> tuple[np.ndarray, int | None]:
    """Lay smooth errors (L, 5, 5) on the one wavelength, if there is one, that alone explains how they differ.

    They leave open what a common height could explain. Of three wavelengths or more each has a pattern of its own; where that
    of one is what was found, its errors are taken for the whole truth, and its row is given; else None. Planes may have another
    origin than the rest. Pistons are left out.
    """
    degree = np.add.outer(np.arange(DEGREE + 1), np.arange(DEGREE + 1))
    kept, bow = (np.where(degree > least, errors, 0.0) for least in (0, 1))
    for part in (kept, bow):
        alone = _culprit(part, samples, scale)
        if alone is not None:
            pattern, common = _pattern(samples, alone)
            return kept + np.multiply.outer(common, _sizes(part, pattern)), alone
    return kept, None


def _culprit(errors: np.ndarray, samples: Samples, scale: float) -> int | None:
    """Find the one wavelength whose error alone explains ``errors``."""
    if len(samples.ratio) < 3:
        return None
    shares = [_left(errors, m, samples, scale) for m in range(len(samples.ratio))]
    alone = int(np.argmin(shares))
    return alone if shares[alone] < _EXPLAINED and sorted(shares)[1] > _CLEARLY * shares[alone] else None


def _pattern(samples: Samples, alone: int) -> tuple[np.ndarray, np.ndarray]:
    """Part an error of one, in wavelength ``alone``, into what differs between wavelengths and a common height, (L,) each."""
    ratio, worth = samples.ratio, samples.ratio / samples.variance.mean(axis=1)
    common = ratio * worth[alone] / (worth @ ratio)
    return (np.arange(len(ratio)) == alone) - common, common


def _sizes(errors: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """Fit every term of errors (L, 5, 5) by a multiple of the pattern, (5, 5)."""
    return np.asarray(np.einsum("l,lij->ij", pattern, errors) / (pattern @ pattern))


def _left(errors: np.ndarray, alone: int, samples: Samples, scale: float) -> float:
    """Compute the share of the errors' power that no error of one wavelength ``alone`` explains."""
    pattern, _ = _pattern(samples, alone)
    left = errors - np.multiply.outer(pattern, _sizes(errors, pattern))
    power = [float((polynomial(one, samples.position, scale) ** 2).sum()) for one in (left, errors)]
    return power[0] / max(power[1], 1e-30)


def polynomial(coefficients: np.ndarray, position: np.ndarray, scale: float) -> np.ndarray:
    """Evaluate polynomials (L, 5, 5) at ``position`` (P, 2) from the centre, (L, P)."""
    y, x = (position / scale).T
    return np.asarray(np.polynomial.polynomial.polyval2d(y, x, np.moveaxis(coefficients, 0, -1)))


def _grown(samples: Samples, search: Search, span: float, scale: float, origin: int) -> tuple[float, np.ndarray]:
    """Grow the polynomials from one pixel; gives the misfit in the end, and them."""
    coefficients = np.zeros((len(samples.ratio), DEGREE + 1, DEGREE + 1))
    coefficients[:, 0, 0] = samples.turns[:, origin]
    away = np.sqrt(((samples.position - samples.position[origin]) ** 2).sum(axis=1))
    misfit = np.inf
    for share, degree in _GROWTH:
        reach = max(share * away.max(), np.sort(away)[min(_FEWEST, away.size - 1)])
        inside = thin(subset(samples, away <= reach), _DECIDE)
        level = inside.turns - polynomial(coefficients, inside.position, scale)
        flat = Guess(np.zeros(len(level)), np.zeros((len(level), 2)), 0.0, span)
        decoded = decode(Samples(level, inside.variance, inside.position, inside.ratio), search, flat, _LOOSE_TURNS)
        misfit = float(np.minimum(decoded.misfit, 50.0).mean())
        fits = (np.abs(decoded.residual) < _OUTLIER_TURNS).all(axis=0)
        use = fits & decoded.clear if (fits & decoded.clear).sum() >= 40 else fits
        if use.sum() < 40:
            break
        coefficients = coefficients + _terms(subset(inside, use), decoded.residual[:, use], degree, scale)
    return misfit, coefficients


def _terms(samples: Samples, residual: np.ndarray, degree: int, scale: float) -> np.ndarray:
    """Fit polynomials to residuals (L, P); what a common height explains stays with the height."""
    y, x = (samples.position / scale).T
    some = powers(degree)
    columns = np.stack([y**i * x**j for i, j in some], axis=1)
    ratio, worth = samples.ratio, samples.ratio / samples.variance.mean(axis=1)
    found = np.linalg.lstsq(columns, residual.T, rcond=1e-6)[0].T
    found -= np.outer(ratio, worth @ found / (worth @ ratio))
    out = np.zeros((len(ratio), DEGREE + 1, DEGREE + 1))
    for values, (i, j) in zip(found.T, some, strict=True):
        out[:, i, j] = values
    return out
