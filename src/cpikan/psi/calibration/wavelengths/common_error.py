"""What smooth errors between wavelengths have in common: a height like any other, which how they differ says nothing of.

So sigma takes it to be as large as what differs: errors e_l that are drawn alike leave residuals about one height, whose mean
square, over L - 1 degrees of freedom, is the variance of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from cpikan.psi.kernels.model import OrderSearch

_SMALL = 0.3  # of the noise of a height: adds four per cent to it


@dataclass(frozen=True)
class CommonError:
    """``turns`` (L, n, n) are the factors of y^i x^j, pixels from ``centre``, of errors that were taken off the phases and that
    no wavelength alone explains, ``offset_turns`` (L,) their means, which are pistons; ``nm_per_turn`` is the height of a turn
    of all of them. ``typical_nm`` and ``largest_nm`` are figures of `sigma_nm` over the pixels that were looked at."""

    turns: np.ndarray
    offset_turns: np.ndarray
    centre: tuple[float, float]
    nm_per_turn: float
    typical_nm: float = 0.0
    largest_nm: float = 0.0

    def sigma_nm(self, start: int, stop: int, width: int) -> np.ndarray:
        """Compute the standard deviation of the common part in rows [start, stop) of an image, (rows, width)."""
        powers = range(self.turns.shape[1])
        y, x = (
            np.stack([(np.arange(*span) - middle) ** k for k in powers], axis=1)
            for span, middle in zip(((start, stop), (0, width)), self.centre, strict=True)
        )
        return self._sigma_nm((y @ one @ x.T for one in self.turns), (stop - start, width))

    def at(self, position: np.ndarray) -> np.ndarray:
        """Compute it at ``position`` (P, 2), pixels from the centre, (P,)."""
        y, x = position.T
        return self._sigma_nm((np.polynomial.polynomial.polyval2d(y, x, one) for one in self.turns), y.shape)

    def _sigma_nm(self, errors: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        total = np.zeros(shape)
        for values, offset in zip(errors, self.offset_turns, strict=True):
            total += (values - offset) ** 2
        return np.asarray(self.nm_per_turn * np.sqrt(total / (len(self.turns) - 1)))


def common_error(search: OrderSearch, position: np.ndarray, sigma_nm: float, *, explained: bool) -> CommonError | None:
    """Take what an order search takes off phases at ``position`` (P, 2), pixels from the centre, as a doubt of the height.

    ``explained`` says that one wavelength alone has the smooth errors beside the plane, which are taken off whole then. None
    where what is left is small beside the noise ``sigma_nm`` of heights.
    """
    bow = None if explained else search.bow_turns
    turns = np.zeros((len(search.ratio), 2, 2)) if bow is None else bow.copy()
    turns[:, 1, 0] += search.tilt_turns[:, 0]
    turns[:, 0, 1] += search.tilt_turns[:, 1]
    if not turns.any():
        return None
    y, x = position.T
    means = np.array([np.polynomial.polynomial.polyval2d(y, x, one).mean() for one in turns])
    found = CommonError(
        turns, means, search.centre, search.half_wave_nm / float(np.sqrt(np.square(search.ratio).sum()))
    )
    sizes = found.at(position)
    if sizes.max() < _SMALL * sigma_nm:
        return None
    return replace(found, typical_nm=float(np.sqrt(np.mean(sizes**2))), largest_nm=float(sizes.max()))
