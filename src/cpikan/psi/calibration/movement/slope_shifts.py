"""Shifts between the images of the wavelengths, seen on slopes: an image that lies elsewhere shows the height of another place.

A wavelength whose image lies s away from that of the first has phases that differ by -k s . grad h, which means of small
squares of pixels show far below their noise. A surface of second degree cannot tell that from a tilt: then none is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cpikan.psi.calibration.picture import Picture
from cpikan.psi.calibration.wavelengths.smooth_errors import DEGREE, powers
from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.kernels.model import OrderSearch

_SIDE_PX = 8  # of the squares
_FILLED = 0.5  # of the pixels of a square that is used
_FEWEST = 40  # squares
_EXPLAINED = 0.1  # of what the wavelengths disagree by, at most, that the slopes leave
_BEFORE_TILT = 0.25  # of what a tilt leaves, at most


def slope_shifts(
    pictures: Sequence[Picture],
    search: OrderSearch,
    sigma_rad: Sequence[float],
    share: Callable[..., Iterable[np.ndarray]] = map,
) -> list[tuple[np.ndarray, float]]:
    """Estimate how far each wavelength but the first lies down and right of the first: pixels (2,), and standard error.

    ``sigma_rad`` is the phase noise by wavelength, as in the frames. Zero where slopes do not explain what the wavelengths
    disagree by clearly better than a tilt does. ``share`` maps over the pictures, on threads if it likes.
    """
    squares = np.concatenate(list(share(lambda one: _squares(one, search, np.asarray(sigma_rad)), pictures)), axis=1)
    squares = squares[:, np.isfinite(squares).all(axis=0)]
    return [_shift(squares[:2], pair[:2], pair[2]) for pair in squares[2:].reshape(len(sigma_rad) - 1, 3, -1)]


def _squares(picture: Picture, search: OrderSearch, sigma_rad: np.ndarray) -> np.ndarray:
    """Take medians over squares, in turns of the anchor: row, column, and for each wavelength but the first the two slopes of
    it and the first together, per pixel, and by how much the two disagree: (2 + 3 (L - 1), squares); NaN where a square is
    not filled. The mean slope of both makes a shift exact to second order.
    """
    y, x = np.broadcast_arrays(*picture.position)
    order = list(search.order)
    phasor, ratio = picture.phasor[order], search.ratio[:, None, None]
    taken_off = search.relative_turns(y, x)
    turns = np.angle(phasor) / (2 * np.pi) - taken_off
    heights = _heights(turns, search, sigma_rad[order] / (2 * np.pi))
    left = turns - ratio * heights
    apart = (left - np.rint(left) + taken_off) / ratio
    back = np.argsort(order)
    kinds = np.stack([*((_slope(phasor, axis) / ratio)[back] for axis in (0, 1)), apart[back]], axis=1)
    pairs = [np.stack([*((kinds[0] + one) / 2)[:2], one[2] - kinds[0, 2]]) for one in kinds[1:]]
    values = np.concatenate([[y, x], *pairs])
    smooth = [lit & ~picture.beside_jumps(number) for number, lit in enumerate(picture.lit)]
    return _medians(np.where(np.all(smooth, axis=0), values, np.nan))


def _heights(turns: np.ndarray, search: OrderSearch, sigma_turns: np.ndarray) -> np.ndarray:
    """Decode heights in turns of the anchor, (rows, columns), within the reach of the data: those beyond are few."""
    flat = turns.reshape(len(turns), -1)
    variance = np.broadcast_to(sigma_turns[:, None] ** 2, flat.shape)
    low, span = search.near_low_nm / search.half_wave_nm, search.near_range_nm / search.half_wave_nm
    order, correction, *_ = search_orders(search.ratio)(flat, variance, low, span)
    return np.asarray(flat[0] + order + correction).reshape(turns.shape[1:])


def _slope(phasor: np.ndarray, axis: int) -> np.ndarray:
    """Compute the slopes of phases (L, rows, columns) along rows (0) or columns (1), turns per pixel; NaN at the rim."""
    values = np.moveaxis(phasor, axis + 1, -1)
    turn = np.angle(values[..., 1:] * values[..., :-1].conj()) / (2 * np.pi)
    found = np.full(values.shape, np.nan)
    found[..., 1:-1] = (turn[..., 1:] + turn[..., :-1]) / 2
    return np.moveaxis(found, -1, axis + 1)


def _medians(values: np.ndarray) -> np.ndarray:
    """Take medians over whole squares of (n, rows, columns), NaN left out: (n, squares); NaN where too few are left."""
    count, rows, columns = (
        size // side * side for size, side in zip(values.shape, (1, _SIDE_PX, _SIDE_PX), strict=True)
    )
    shape = (count, rows // _SIDE_PX, _SIDE_PX, columns // _SIDE_PX, _SIDE_PX)
    pixels = values[:, :rows, :columns].reshape(shape).swapaxes(2, 3).reshape(count, -1, _SIDE_PX**2)
    filled = np.isfinite(pixels).all(axis=0).mean(axis=1) > _FILLED
    found = np.full(pixels.shape[:2], np.nan)
    rising = np.sort(pixels[:, filled], axis=2)  # NaN come last
    middle = (np.isfinite(rising).sum(axis=2, keepdims=True) - (1, 0)) // 2
    found[:, filled] = np.take_along_axis(rising, middle, axis=2).mean(axis=2)
    return found


def _shift(position: np.ndarray, slopes: np.ndarray, apart: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit what two wavelengths disagree by (P,) by the slopes (2, P): shift (2,) and standard error; zero where a tilt, or a
    smooth error beside, explains it as well."""
    nothing = np.zeros(2), np.inf
    if apart.size < _FEWEST:
        return nothing
    y, x = (position - position.mean(axis=1, keepdims=True)) / np.ptp(position, axis=1).max()
    one = np.ones_like(y)
    smooth = [y**i * x**j for i, j in powers(DEGREE)]
    everything = _left([*smooth, *slopes], apart)[1]
    degrees = apart.size - len(smooth) - 2
    noise = everything / degrees
    factors, by_slopes = _left([one, *slopes], apart)
    by_tilt, by_nothing = (_left(columns, apart)[1] for columns in ([one, y, x], [one]))
    rest = max(by_slopes - noise * (apart.size - 3), 0.0)
    if rest > _EXPLAINED * (by_nothing - everything) or rest > _BEFORE_TILT * (by_tilt - everything):
        return nothing
    columns = np.stack([one, *slopes])
    error = np.sqrt(noise * np.diag(np.linalg.pinv(columns @ columns.T))[1:].sum())
    return -factors[1:], float(error)


def _left(columns: Sequence[np.ndarray], values: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit ``values`` (P,) by columns: factors, and the sum of squares that is left."""
    matrix = np.stack(columns, axis=1)
    factors = np.linalg.lstsq(matrix, values, rcond=None)[0]
    return factors, float(((values - matrix @ factors) ** 2).sum())
