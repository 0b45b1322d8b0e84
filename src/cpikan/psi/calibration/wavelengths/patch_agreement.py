"""How well the wavelengths agree on the means of small squares: phase errors that neighbours share show there, below noise.

A pixel's phases say little about errors below its noise, and less where noise leaves several orders open: the best of many
orders misfits by less than noise. The mean of a square has an eighth of the noise, and what is left over is shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cpikan.psi.calibration.picture import Picture
from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.kernels.model import OrderSearch

_SIDE_PX = 8  # of the squares
_FEWEST = 30  # squares
_FLAT = 0.9  # of the length that noise leaves of a mean phasor: below it the surface bends or steps within the square
_TRIMMED = 0.95  # of the squares, those that fit best: the others may hold a step after all
_CERTAIN = 4.0  # standard errors
_OUTWARD = 4.0  # times the variance that smooth errors have at the rim of the image, twice as far from its middle


def shared_variance(
    pictures: Sequence[Picture],
    search: OrderSearch,
    sigma_rad: Sequence[float],
    share: Callable[..., Iterable[np.ndarray]] = map,
) -> float:
    """Estimate the share of the phase variance that the pixels of a square have in common, 0 where noise explains it all.

    It is that of the picture where it is largest, as it may be at the rim of the image, of whose middle rows the pictures
    are. ``sigma_rad`` is the phase noise by wavelength, in the order of the frames.
    """
    sigma = np.asarray(sigma_rad)
    degrees = max(len(sigma) - 1, 1)
    misfits = share(lambda one: _misfits(one, search, sigma), pictures)
    return min(_OUTWARD * max((_excess(one, degrees) for one in misfits), default=0.0) / _SIDE_PX**2, 1.0)


def _excess(misfit: np.ndarray, degrees: int) -> float:
    """Compute by how much chi squared per degree of freedom exceeds 1; 0 where that is not certain."""
    if misfit.size < _FEWEST:
        return 0.0
    kept = np.sort(misfit)[: math.ceil(_TRIMMED * misfit.size)]
    excess = float(kept.mean()) / degrees - 1
    return excess if excess > _CERTAIN * math.sqrt(2 / (degrees * kept.size)) else 0.0


def _misfits(picture: Picture, search: OrderSearch, sigma_rad: np.ndarray) -> np.ndarray:
    """Compute chi squared of the best order of the mean phases of every square without a step, (squares,)."""
    order = list(search.order)
    phasor, noise = picture.phasor[order], sigma_rad[order]
    length = np.abs(phasor)
    unit = np.divide(phasor, length, out=np.zeros_like(phasor), where=(length > 0) & np.isfinite(length))
    smooth = [lit & ~picture.beside_jumps(number) for number, lit in enumerate(picture.lit)]
    unit = np.where(np.all(smooth, axis=0), unit, 0)
    squares = _squares(unit)
    steps = _slopes(squares[0])
    y, x = np.mgrid[:_SIDE_PX, :_SIDE_PX] - (_SIDE_PX - 1) / 2
    level = (
        steps[0][:, None, None] * y + steps[1][:, None, None] * x
    )  # turns of the anchor from the middle of the square
    means = (squares * np.exp(-2j * np.pi * search.ratio[:, None, None, None] * level)).mean(axis=(2, 3))
    flat = (np.abs(means) > _FLAT * np.exp(-(noise[:, None] ** 2) / 2)).all(axis=0)
    rows, columns = (
        _squares(one[None].astype(float))[0].mean(axis=(1, 2)) for one in np.broadcast_arrays(*picture.position)
    )
    turns = (np.angle(means) / (2 * np.pi) - search.relative_turns(rows, columns))[:, flat]
    variance = np.broadcast_to((noise[:, None] / (2 * np.pi * _SIDE_PX)) ** 2, turns.shape)
    low, span = search.low_nm / search.half_wave_nm, search.range_nm / search.half_wave_nm
    return np.asarray(search_orders(search.ratio)(turns, variance, low, span)[2])


def _squares(values: np.ndarray) -> np.ndarray:
    """Cut (n, rows, columns) into whole squares, (n, squares, side, side)."""
    count, rows, columns = len(values), *(size // _SIDE_PX for size in values.shape[1:])
    cut = values[:, : rows * _SIDE_PX, : columns * _SIDE_PX].reshape(count, rows, _SIDE_PX, columns, _SIDE_PX)
    return cut.swapaxes(2, 3).reshape(count, rows * columns, _SIDE_PX, _SIDE_PX)


def _slopes(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean slopes of unit phasors (squares, side, side) down and right, turns per pixel."""
    down = (squares[:, 1:] * squares[:, :-1].conj()).sum(axis=(1, 2))
    right = (squares[:, :, 1:] * squares[:, :, :-1].conj()).sum(axis=(1, 2))
    return np.angle(down) / (2 * np.pi), np.angle(right) / (2 * np.pi)
