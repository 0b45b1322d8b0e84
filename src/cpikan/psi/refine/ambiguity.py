"""How much doubt the pixels' own orders leave: measured on a subsample, to know whether neighbours need asking at all."""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels import reference
from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.kernels.model import PixelModel

CELL_SHARE = 1e-3  # doubtful pixels of a 64-pixel cell from which its orders are refined: 4 of 4096
_REGIONS = 8  # per axis
_FEWEST = 3  # doubtful samples of a region: one or two may be dust


def is_doubtful(frames: np.ndarray, position: np.ndarray, shape: tuple[int, int], model: PixelModel) -> bool:
    """Tell whether over `CELL_SHARE` of the sampled pixels are ambiguous, in the image or one of its 8 x 8 regions.

    ``frames`` (L, K, P) at the rows and columns ``position`` (P, 2) of an image of ``shape``.
    """
    search = model.search
    if search is None:
        return False
    place = position[:, 0], position[:, 1]
    phase, variance, _, snr, saturated, _ = reference.demodulate(frames, model.demodulation, place)
    total = snr.sum(axis=0)
    measured = (total >= model.demodulation.snr_min) & np.isfinite(variance).all(axis=0) & ~saturated
    if not measured.any():
        return False
    rows = list(search.order)
    turns = phase[rows][:, measured] / (2 * np.pi) - search.relative_turns(*position[measured].T)
    spread = variance[rows][:, measured] / (2 * np.pi) ** 2
    half = search.half_wave_nm
    found = search_orders(search.ratio)(turns, spread, search.low_nm / half, search.range_nm / half)
    doubtful = (found[3] - found[2] < search.margin_min) | (found[2] > search.misfit_max)
    region = (position[measured] * _REGIONS // np.asarray(shape)) @ (_REGIONS, 1)
    all_of, bad_of = (np.bincount(region, counts, _REGIONS**2) for counts in (None, doubtful.astype(float)))
    return bool(doubtful.mean() > CELL_SHARE or ((bad_of > _FEWEST) & (bad_of > CELL_SHARE * all_of)).any())
