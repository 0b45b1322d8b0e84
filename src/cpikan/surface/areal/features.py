"""Feature parameters of ISO 25178-2:2021: significant hills and dales by watershed with Wolf pruning, and their numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.units import PixelUm, pixel_pair

FloatArray = NDArray[np.float64]

PRUNING = 0.05  # of Sz (ISO 25178-3)
_FIVE = 5


@dataclass(frozen=True)
class Dales:
    """The significant dales of a map: pit of each as flat index, and the height at which it overflows, inf for none.

    ``labels`` (H, W) numbers them from 0, -1 where the map is NaN; ``open`` tells which touch the map's edge or a hole.
    """

    labels: Int64[np.ndarray, "h w"]
    pits: NDArray[np.int64]
    spill_nm: FloatArray
    open: NDArray[np.bool_]


def find_dales(height_nm: Float[np.ndarray, "h w"], pruning: float = PRUNING) -> Dales:
    """Segment a map (H, W) into dales that are at least ``pruning`` x Sz deep up to where they overflow.

    Each pixel runs down to its lowest neighbour of eight; a dale less deep than that joins the neighbour across its
    lowest saddle, the shallowest first (Wolf, Fortschr.-Ber. VDI 5/33 (1991); Scott, Int. J. Mach. Tools Manuf. 44, 635
    (2004)). Hills are the dales of the negative map. About 50 bytes a pixel are in use. Raises InputError for a pruning
    that is no share.
    """
    from cpikan.surface.areal.watershed_kernel import flood

    if not 0 <= pruning <= 1:
        raise InputError(f"pruning {pruning} is no share of Sz: give 0 to 1, such as 0.05")
    heights = np.ascontiguousarray(height_nm, np.float64)
    flat = heights.reshape(-1)
    valid = np.flatnonzero(np.isfinite(flat))
    parent, spill = np.full(flat.size, -1, np.int64), np.full(flat.size, np.inf)
    if valid.size:
        order = valid[np.argsort(flat[valid], kind="stable")]
        flood(heights, order, pruning * float(flat[order[-1]] - flat[order[0]]), parent, spill)
    parent = _roots(parent, valid)
    pits = np.flatnonzero(parent == np.arange(parent.size))
    labels = np.full(heights.shape, -1, np.int64)
    labels.reshape(-1)[valid] = np.searchsorted(pits, parent[valid])
    return Dales(labels, pits, spill[pits], _open(labels, pits.size))


def _roots(parent: NDArray[np.int64], valid: NDArray[np.int64]) -> NDArray[np.int64]:
    """Follow all ways to their ends at once, twice as far every time."""
    while True:
        further = parent[parent[valid]]
        if np.array_equal(further, parent[valid]):
            return parent
        parent[valid] = further


def _open(labels: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Tell which labels have a pixel beside the edge of the map or beside a hole (label -1)."""
    padded = np.pad(labels, 1, constant_values=-1)
    height, width = labels.shape
    beside = np.zeros(labels.shape, bool)
    for dy in range(3):
        for dx in range(3):
            beside |= padded[dy : dy + height, dx : dx + width] < 0
    found = np.zeros(count, bool)
    found[labels[beside & (labels >= 0)]] = True
    return found


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
    height_nm: Float[np.ndarray, "h w"], pixel_um: PixelUm | None = None, pruning: float = PRUNING
) -> dict[str, float | None]:
    """Compute the numbers of the hills and dales that touch neither the edge nor a hole; None where there is none.

    Heights count from the mean. Densities, curvatures, areas and volumes need the size of a pixel.
    """
    heights = np.asarray(height_nm, np.float64)
    found: dict[str, float | None] = dict.fromkeys(FEATURES)
    finite = heights[np.isfinite(heights)]
    if finite.size == 0 or finite.max() == finite.min():
        return found
    heights = heights - finite.mean()
    pair = pixel_pair(pixel_um)
    for sign, names in (
        (-1.0, ("s5p_nm", "spd_per_mm2", "spc_per_mm", "sha_um2", "shv_um3")),
        (1.0, ("s5v_nm", "svd_per_mm2", "svc_per_mm", "sda_um2", "sdv_um3")),
    ):
        found |= dict(zip(names, _numbers(sign * heights, sign, pruning, pair), strict=True))
    if found["s5p_nm"] is not None and found["s5v_nm"] is not None:
        found["s10z_nm"] = found["s5p_nm"] + found["s5v_nm"]
    return found


def _numbers(
    heights: FloatArray, sign: float, pruning: float, pair: tuple[float, float] | None
) -> tuple[float | None, ...]:
    """Compute the mean depth of the five deepest pits (or of all, where fewer), density, curvature, area and volume."""
    dales = find_dales(heights, pruning)
    closed = np.flatnonzero(~dales.open)
    pits = dales.pits[closed]
    five = float(np.sort(-heights.reshape(-1)[pits])[::-1][:_FIVE].mean()) if closed.size else None
    if pair is None:
        return five, None, None, None, None
    inside = dales.labels >= 0
    labels, area = dales.labels[inside], pair[0] * pair[1]
    density = closed.size / (labels.size * area) * 1e6
    if not closed.size:
        return five, density, None, None, None
    sizes = np.bincount(labels, minlength=dales.pits.size)[closed] * area
    spill = np.where(np.isfinite(dales.spill_nm), dales.spill_nm, -np.inf)
    water = np.maximum(0.0, spill[labels] - heights[inside])
    volumes = np.bincount(labels, water, minlength=dales.pits.size)[closed] * area / 1000
    return five, density, sign * _curvature(heights, pits, pair), float(sizes.mean()), float(volumes.mean())


def _curvature(heights: FloatArray, pits: NDArray[np.int64], pair: tuple[float, float]) -> float:
    """Average -(z_xx + z_yy) / 2 at pixels inside the map, in 1/mm (nm per um^2 is 1/mm)."""
    y, x = np.divmod(pits, heights.shape[1])
    twice = 2 * heights[y, x]
    across = (heights[y, x - 1] + heights[y, x + 1] - twice) / pair[1] ** 2
    down = (heights[y - 1, x] + heights[y + 1, x] - twice) / pair[0] ** 2
    return float(-(across + down).mean() / 2)
