"""Planes through scattered values."""

from __future__ import annotations

import numpy as np


def weighted_plane(position: np.ndarray, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fit constant and slopes (3,) of ``values`` (P,) over ``position`` (P, 2), residuals times ``weight``."""
    columns = np.column_stack([np.ones(len(position)), position])
    return np.asarray(np.linalg.lstsq(columns * weight[:, None], values * weight, rcond=None)[0])
