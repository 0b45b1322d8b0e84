"""The autocorrelation of a map with holes: the mean product of heights over the pairs of valid pixels at every lag."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_TILE = 1024
_CLEAREST = 0.5  # counts of pairs are whole numbers: what is below is rounding of none


@dataclass(frozen=True)
class Autocorrelation:
    """Mean products in nm^2 at lags -reach to reach of both axes, NaN where no pair of pixels has the lag.

    ``products`` has the lag 0 at ``products[reach_y, reach_x]``; there it is the mean square of the heights.
    """

    products: Float64[np.ndarray, "lags_y lags_x"]

    @property
    def reach(self) -> tuple[int, int]:
        return self.products.shape[0] // 2, self.products.shape[1] // 2

    @property
    def mean_square(self) -> float:
        return float(self.products[self.reach])


def autocorrelation(height_nm: Float[np.ndarray, "h w"], reach: tuple[int, int] | None = None) -> Autocorrelation:
    """Correlate a map (H, W) about its mean with itself up to lags ``reach`` (y, x), all lags without it.

    Every lag is divided by the number of its pairs, so that edges and holes only make it less certain (Percival, The
    Statistician 42, 459 (1993), on such estimates). By Fourier transforms of tiles that are as large as the reach; about
    60 bytes for each of (tile + 2 reach)^2 lags, not the map, are in use.
    """
    heights = np.asarray(height_nm)
    height, width = heights.shape
    reach_y, reach_x = (min(r, n - 1) for r, n in zip(reach or heights.shape, heights.shape, strict=True))
    valid = np.isfinite(heights)
    mean = float(heights[valid].mean(dtype=np.float64)) if valid.any() else 0.0
    tile = min(height, max(_TILE, 2 * reach_y)), min(width, max(_TILE, 2 * reach_x))
    size = _size(tile, (reach_y, reach_x))
    sums = [np.zeros((size[0], size[1] // 2 + 1), np.complex128) for _ in range(2)]
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            _add(sums, heights, mean, (top, left), tile, (reach_y, reach_x))
    products, pairs = (_lags(total, size, (reach_y, reach_x)) for total in sums)
    return Autocorrelation(np.where(pairs > _CLEAREST, products / np.maximum(np.rint(pairs), 1.0), np.nan))


def _size(tile: tuple[int, int], reach: tuple[int, int]) -> tuple[int, int]:
    """Choose lengths of the transforms that hold a tile with the reach around it."""
    from scipy.fft import next_fast_len

    y, x = (int(next_fast_len(one + 2 * more, real=True)) for one, more in zip(tile, reach, strict=True))
    return y, x


def _add(
    sums: list[NDArray[np.complex128]],
    heights: NDArray[np.floating],
    mean: float,
    corner: tuple[int, int],
    tile: tuple[int, int],
    reach: tuple[int, int],
) -> None:
    """Add the products of the heights of a tile with those up to the reach around it, and the pairs."""
    from scipy.fft import rfft2

    size = _size(tile, reach)
    top, left = corner
    begin = max(0, top - reach[0]), max(0, left - reach[1])
    around = heights[begin[0] : top + tile[0] + reach[0], begin[1] : left + tile[1] + reach[1]]
    inner = heights[top : top + tile[0], left : left + tile[1]]
    for k in range(2):
        parts = []
        for part, first in ((inner, (top, left)), (around, begin)):
            valid = np.isfinite(part)
            values = np.where(valid, part - mean, 0.0) if k == 0 else valid.astype(np.float64)
            # both are placed where they lie in the window of the tile with the reach around it
            down, across = first[0] - (top - reach[0]), first[1] - (left - reach[1])
            placed = np.zeros((down + values.shape[0], across + values.shape[1]))
            placed[down:, across:] = values
            parts.append(rfft2(placed, s=size))
        parts[1] *= parts[0].conj()
        sums[k] += parts[1]


def _lags(total: NDArray[np.complex128], size: tuple[int, int], reach: tuple[int, int]) -> FloatArray:
    from scipy.fft import irfft2

    found = irfft2(total, s=size)
    rows, columns = (np.arange(-r, r + 1) for r in reach)
    lags: FloatArray = found[np.ix_(rows, columns)]
    return (lags + lags[::-1, ::-1]) / 2  # equal up to rounding
