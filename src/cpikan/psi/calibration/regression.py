"""Linear regression: planes through scattered values, and many values on few columns."""

from __future__ import annotations

import numpy as np


def weighted_plane(position: np.ndarray, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fit constant and slopes (3,) of ``values`` (P,) over ``position`` (P, 2), residuals times ``weight``."""
    columns = np.column_stack([np.ones(len(position)), position])
    return np.asarray(np.linalg.lstsq(columns * weight[:, None], values * weight, rcond=None)[0])


_RIDGE = 1e-9  # of the diagonal: columns that are the same leave the equations solvable


def regressed(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Fit ``values`` (n, P) by ``columns`` (m, P), least squares: factors (n, m).

    By normal equations, several times faster than an orthogonal factorisation, which columns of like size do not need.
    """
    normal = columns @ columns.T
    normal += np.diag(_RIDGE * np.diag(normal) + 1e-300)
    return np.asarray(np.linalg.solve(normal, columns @ values.T).T)
