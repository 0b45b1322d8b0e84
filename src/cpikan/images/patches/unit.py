"""The noise of a whole map that periods of features are counted in, from a few windows of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch

from cpikan.images.features import noise_unit_nm

_SIDE = 8  # windows down and across
_WINDOW_PX = 96

MapWindow = Callable[[slice, slice], tuple[np.ndarray, np.ndarray, np.ndarray]]


def sample_windows(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Choose at most 8 x 8 windows of at most 96 x 96 pixels, evenly spread over an image (H, W): the memory of a sample
    does not depend on the image."""
    size = [min(_WINDOW_PX, length) for length in shape]
    axes = [
        [slice(start, start + n) for start in np.unique(np.linspace(0, length - n, _SIDE).astype(int)).tolist()]
        for length, n in zip(shape, size, strict=True)
    ]
    return [(rows, columns) for rows, columns in itertools.product(*axes)]


def map_unit_nm(window: MapWindow, shape: tuple[int, int], finest_period: float) -> float:
    """Compute `noise_unit_nm` of a map (H, W), from a sample; ``window(rows, columns)`` gives height_nm, sigma_nm and valid
    there.

    An empty row between the windows keeps rows that are no neighbours from being compared.
    """
    parts: list[list[np.ndarray]] = [[], [], []]
    for rows, columns in sample_windows(shape):
        for part, values in zip(parts, window(rows, columns), strict=True):
            part += [values, np.zeros_like(values[:1])]
    height_nm, sigma_nm, valid = (torch.from_numpy(np.concatenate(part)) for part in parts)
    return noise_unit_nm(height_nm, sigma_nm, valid, finest_period)
