"""The detector's response: how much light a sample stands for, where the detector bends the fringes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

HIGHEST = 5  # degree of the Legendre polynomials; degree 0 is background


@dataclass(frozen=True)
class Response:
    """Light in DN = sample + sum_j coefficients_dn[j] P_(j + 1)(t), t in [-1, 1] as the sample goes from ``low_dn`` to
    ``high_dn``; beyond them the curve goes on straight."""

    low_dn: float
    high_dn: float
    coefficients_dn: tuple[float, ...]

    def light_dn(self, samples: np.ndarray) -> np.ndarray:
        """Convert samples of any shape to linear light in DN; NaN stays NaN."""
        values = np.asarray(samples, np.float64)
        inside = np.clip(values, self.low_dn, self.high_dn)
        bent = values + np.tensordot(self.coefficients_dn, bends(self.at(inside), len(self.coefficients_dn)), 1)
        return bent + (self.slope(inside) - 1) * (values - inside)

    def slope(self, samples: np.ndarray) -> np.ndarray:
        """Differentiate the light by the sample."""
        inside = np.clip(np.asarray(samples, np.float64), self.low_dn, self.high_dn)
        series = legendre.legder([0.0, *self.coefficients_dn])
        return 1 + legendre.legval(self.at(inside), series) * 2 / (self.high_dn - self.low_dn)

    def at(self, samples: np.ndarray) -> np.ndarray:
        """Convert samples to t."""
        return (2 * samples - (self.low_dn + self.high_dn)) / (self.high_dn - self.low_dn)

    @property
    def is_rising(self) -> bool:
        return bool(self.slope(np.linspace(self.low_dn, self.high_dn, 257)).min() > 0)

    def monomials(self) -> np.ndarray:
        """Compute the factors of 1, t, t^2, ... t^5 of what is added to a sample inside the range."""
        found = legendre.leg2poly([0.0, *self.coefficients_dn])
        return np.pad(found, (0, HIGHEST + 1 - len(found)))


def bends(t: np.ndarray, count: int) -> np.ndarray:
    """Evaluate P_1 .. P_count at t: (count, ...)."""
    return np.moveaxis(legendre.legvander(t, count)[..., 1:], -1, 0)
