"""What a model of the frames leaves over that is no noise: the part that follows light, fringes and place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.order_statistics import median, quantile
from cpikan.psi.calibration.regression import regressed
from cpikan.psi.calibration.steps.step_fit import StepFit, resolved
from cpikan.psi.model.schemes import design_matrix

_KINDS: dict[str, slice] = {"light": slice(0, 4), "fringes": slice(4, 10), "harmonics": slice(10, 14)}
_DEVIATIONS = 8.0  # of the power that noise alone would put into the columns, before it is called structure
LEAST_SHARE = 0.03  # of the residual power: less changes no uncertainty by two per cent
_FEWEST = 300
_LIT = 0.3  # of the modulation of the bright pixels
_ROUND = 4.0  # times the median square: residuals beyond it are clipped, dust would decide otherwise


@dataclass(frozen=True)
class Structure:
    """``share`` of the residual power that is systematic, and of which kind most of it is.

    ``light`` follows the background, ``fringes`` the fringe itself (steps, tilts, contrast), ``harmonics`` its double and
    triple. ``significant``: noise alone would not do that. ``rest`` (K, P) is what is left without it, in DN.
    """

    share: float
    kind: str
    significant: bool
    rest: np.ndarray


def plain_structure(samples: np.ndarray, position: np.ndarray, steps_deg: tuple[float, ...]) -> Structure | None:
    """Look for structure in what given steps leave of samples (K, P) at ``position`` (P, 2); None where nothing is left."""
    design = design_matrix(steps_deg)
    values = np.asarray(samples, np.float64)
    found = np.linalg.pinv(design) @ values
    return structure_of(values - design @ found, found, position, len(values) - 3)


def fitted_structure(fit: StepFit, samples: np.ndarray, position: np.ndarray) -> Structure | None:
    """Look for structure in what a fit leaves of samples (K, P) at ``position`` (P, 2); None where nothing is left over."""
    found, rest = resolved(fit, np.asarray(samples, np.float64), np.asarray(position, np.float64))
    return structure_of(rest.T, found[:3], position, len(samples) - 3 - 2 * len(fit.model.harmonics))


def structure_of(rest: np.ndarray, found: np.ndarray, position: np.ndarray, left: int) -> Structure | None:
    """Look for structure in residuals (K, P) beside A, B cos phi, B sin phi ``found`` (3, P), ``left`` free numbers a pixel.

    Residuals of each frame are regressed on A, B cos phi, B sin phi, those times row and column, and on the second and third
    harmonic. White noise puts into m columns the share m / P, with a scatter that is known: no more than that is no structure.
    """
    lit = np.hypot(found[1], found[2])
    used = lit > _LIT * quantile(lit, 0.9) if lit.size else np.zeros(0, bool)
    if left < 1 or used.sum() < _FEWEST:
        return None
    columns = _columns(position, found)
    some, held = columns[:, used], _clipped(rest[:, used])
    total = float((held**2).sum())
    if total <= 0:
        return Structure(0.0, "light", significant=False, rest=rest)
    factors = regressed(some, held)
    share = float(((factors @ some) ** 2).sum()) / total
    by_chance = len(some) / int(used.sum())
    scatter = by_chance * float(np.sqrt(2 / (len(some) * left)))
    beyond = max(share - by_chance, 0.0)
    powers = {kind: float(((factors[:, part] @ some[part]) ** 2).sum()) for kind, part in _KINDS.items()}
    significant = beyond > max(_DEVIATIONS * scatter, LEAST_SHARE)
    return Structure(beyond, max(powers, key=lambda kind: powers[kind]), significant, rest - factors @ columns)


def _clipped(rest: np.ndarray) -> np.ndarray:
    """Clip residuals of pixels that are far off, dust or moved ones, to a size that does not decide alone."""
    size = np.sqrt((rest**2).mean(axis=0))
    limit = _ROUND * median(size)
    return rest * np.minimum(1.0, limit / np.maximum(size, 1e-300)) if limit > 0 else rest


def _columns(position: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Build the columns (14, P) that structure may follow, in the order of `_KINDS`."""
    background, u, v = found
    y, x = (2 * (c - c.mean()) / max(float(np.ptp(c)), 1e-12) for c in np.asarray(position, float).T)
    level = background - background.mean()
    size = np.maximum(np.hypot(u, v), 1e-12)
    unit = (u + 1j * v) / size
    second, third = size * unit**2, size * unit**3
    light = [np.ones_like(level), level, background * y, background * x]
    return np.stack([*light, u, v, u * y, u * x, v * y, v * x, second.real, second.imag, third.real, third.imag])
