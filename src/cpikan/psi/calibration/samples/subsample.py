"""Subsample: some pixels of a stack, which calibration looks at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cpikan.psi.calibration.steps.carrier import WholeRows


@dataclass(frozen=True)
class Subsample:
    """Some pixels of a stack: ``frames`` (L, K, P), ``position`` (P, 2) row and column, ``rows`` whole rows (L, K, n, W).

    ``valid`` (P,) is the user's mask there, without what is clipped at black. ``shape`` is the image's (H, W). ``quantum_dn``
    is the step between values of integers; samples at or below ``black_dn`` are clipped.
    """

    frames: np.ndarray
    position: np.ndarray
    rows: WholeRows
    valid: np.ndarray
    shape: tuple[int, int]
    quantum_dn: float = 1.0
    black_dn: float = -math.inf
