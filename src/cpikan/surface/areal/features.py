"""Feature parameters of ISO 25178-2:2021: numbers of the significant hills and dales, by watershed with Wolf pruning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cpikan.surface.areal.dales import PRUNING, Dales, find_dales, height_bands
from cpikan.surface.filters.gaussian import Rows
from cpikan.units import PixelUm, pixel_pair

FloatArray = NDArray[np.float64]

_FIVE = 5


FEATURES = (
    "s10z_nm",
    "s5p_nm",
    "s5v_nm",
    "spd_per_mm2",
    "svd_per_mm2",
    "spc_per_mm",
    "svc_per_mm",
    "sha_um2",
    "sda_um2",
    "shv_um3",
    "sdv_um3",
)


def feature_numbers(
    height_nm: Rows, pixel_um: PixelUm | None = None, pruning: float = PRUNING
) -> dict[str, float | None]:
    """Compute the numbers of the hills and dales that touch neither the edge nor a hole; None where there is none.

    The map (H, W), an array or one on disk, is swept in bands. Heights count from the mean. Densities, curvatures, areas and
    volumes need the size of a pixel.
    """
    found: dict[str, float | None] = dict.fromkeys(FEATURES)
    mean = _mean(height_nm)
    if mean is None:
        return found
    pair = pixel_pair(pixel_um)
    for sign, names in (
        (-1.0, ("s5p_nm", "spd_per_mm2", "spc_per_mm", "sha_um2", "shv_um3")),
        (1.0, ("s5v_nm", "svd_per_mm2", "svc_per_mm", "sda_um2", "sdv_um3")),
    ):
        found |= dict(zip(names, _numbers(height_nm, sign, mean, pruning, pair), strict=True))
    if found["s5p_nm"] is not None and found["s5v_nm"] is not None:
        found["s10z_nm"] = found["s5p_nm"] + found["s5v_nm"]
    return found


def _mean(source: Rows) -> float | None:
    """Average the valid heights; None where there is none, or all are equal."""
    total, count, low, high = 0.0, 0, np.inf, -np.inf
    for band in height_bands(source):
        own = band.heights[band.own]
        valid = own[np.isfinite(own)]
        if valid.size:
            total, count = total + float(valid.sum()), count + valid.size
            low, high = min(low, float(valid.min())), max(high, float(valid.max()))
    return total / count if low < high else None


def _numbers(
    source: Rows, sign: float, mean: float, pruning: float, pair: tuple[float, float] | None
) -> tuple[float | None, ...]:
    """Compute the mean depth of the five deepest pits (or of all, where fewer), density, curvature, area and volume."""
    from cpikan.surface.areal.watershed_kernel import pour

    dales = find_dales(source, pruning, sign)
    closed = ~dales.open
    depths = np.sort(sign * mean - dales.depths_nm[closed])[::-1]
    five = float(depths[:_FIVE].mean()) if depths.size else None
    if pair is None:
        return five, None, None, None, None
    sizes, water = np.zeros(dales.pits.size, np.int64), np.zeros(dales.pits.size)
    for band in height_bands(source, sign):
        pour(band.heights[band.own], dales.basins[band.start : band.stop], dales.dales, dales.spill_nm, sizes, water)
    area = pair[0] * pair[1]
    density = depths.size / (sizes.sum() * area) * 1e6
    if not depths.size:
        return five, density, None, None, None
    curvature = _curvature(source, dales, pair)
    return five, density, curvature, float(sizes[closed].mean()) * area, float(water[closed].mean()) * area / 1000


def _curvature(source: Rows, dales: Dales, pair: tuple[float, float]) -> float:
    """Average -(z_xx + z_yy) / 2 of the map itself at the pits of closed dales, in 1/mm (nm per um^2 is 1/mm)."""
    pits, total = dales.pits[~dales.open], 0.0
    for band in height_bands(source):
        width = band.heights.shape[1]
        here = pits[(pits >= band.start * width) & (pits < band.stop * width)] - (band.start - band.first) * width
        y, x = np.divmod(here, width)
        twice = 2 * band.heights[y, x]
        across = (band.heights[y, x - 1] + band.heights[y, x + 1] - twice) / pair[1] ** 2
        down = (band.heights[y - 1, x] + band.heights[y + 1, x] - twice) / pair[0] ** 2
        total += float((across + down).sum())
    return -total / 2 / pits.size
