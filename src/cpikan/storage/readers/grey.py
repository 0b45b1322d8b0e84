"""Pixels with several channels that mean grey."""

from __future__ import annotations

import numpy as np

from cpikan.errors import InputError

JPEG_TOLERANCE_DN = 8  # chroma is rounded, and lossy where a grey picture was saved as colour
_STRIP_ROWS = 256


def to_grey(label: str, pixels: np.ndarray, tolerance: int = 0) -> np.ndarray:
    """Turn (H, W) or (H, W, channels) into (H, W); channels are grey + alpha, RGB, or RGB + alpha.

    RGB whose channels differ by more than ``tolerance`` is colour and refused, as is an alpha that is not opaque.
    Within the tolerance the result is the luma of ITU-R BT.601, which is the grey that JPEG itself stores.
    """
    if pixels.ndim == 2:
        return pixels
    channels = pixels.shape[2]
    if channels in (2, 4):
        alpha = pixels[..., -1]
        opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
        if not bool((alpha == opaque).all()):
            raise InputError(f"{label} is partly transparent: save it without the alpha channel")
    if channels <= 2:
        return np.ascontiguousarray(pixels[..., 0])
    grey = np.empty(pixels.shape[:2], pixels.dtype)
    for start in range(0, len(grey), _STRIP_ROWS):
        strip = pixels[start : start + _STRIP_ROWS, :, :3]
        low, high = strip.min(axis=2), strip.max(axis=2)
        if bool((high - low > tolerance).any()):
            raise InputError(f"{label} is a colour image: give grey frames, or RGB that is grey")
        out = grey[start : start + _STRIP_ROWS]
        if tolerance == 0:
            out[...] = low
        else:
            out[...] = np.rint(strip @ np.array([0.299, 0.587, 0.114]))
    return grey
