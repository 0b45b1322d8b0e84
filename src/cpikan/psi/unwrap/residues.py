"""Residues: 2 x 2 loops around which the wrapped differences do not sum to zero."""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.unwrap.raster import order_step


@compiled(inline="always")
def is_residue(phase_rad: np.ndarray, y: int, x: int) -> bool:
    """Test whether the loop of four valid pixels whose first is (y, x) has a nonzero sum."""
    a, b = phase_rad[y, x], phase_rad[y, x + 1]
    c, d = phase_rad[y + 1, x + 1], phase_rad[y + 1, x]
    if not np.isfinite(a + b + c + d):
        return False
    return order_step(a, b) + order_step(b, c) + order_step(c, d) + order_step(d, a) != 0


@compiled
def count_residues(phase_rad: np.ndarray, rows: int, columns: int) -> int:
    """Count loops with a nonzero sum among those of four valid pixels whose first pixel lies in [:rows, :columns].

    ``phase_rad`` is (h, w) float32, NaN = no pixel (Goldstein, Zebker, Werner, Radio Sci. 23, 713 (1988)).
    """
    height, width = phase_rad.shape
    found = 0
    for y in range(min(rows, height - 1)):
        for x in range(min(columns, width - 1)):
            found += is_residue(phase_rad, y, x)
    return found
