"""Compile what most tests need, once and by two processes, before two workers would each do it for themselves.

python tests/warm_kernels.py        seconds where the cache on disk has them
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np

from cpikan.psi.model.schemes import LEAST_SQUARES
from cpikan.psi.warm import warm_orders, warm_up

# wavelengths, frames, pixels, whether steps are fitted, whether neighbours are asked; the longest first
KINDS = (
    (4, 4, "u1", False, True),
    (1, 5, "u1", True, False),
    (2, 4, "u1", True, True),
    (4, 4, "f4", False, True),
    (1, 4, "f4", True, False),
)


def warm(kind: tuple[int, int, str, bool, bool]) -> None:
    wavelengths, frames, dtype, fitted, neighbours = kind
    warm_up(wavelengths, frames, np.dtype(dtype), LEAST_SQUARES, "cpu", fitted=fitted)
    if neighbours:
        warm_orders(wavelengths, frames, np.dtype(dtype), LEAST_SQUARES)


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(warm, KINDS))
