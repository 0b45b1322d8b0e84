"""Scratch arrays of a learned model's answer; apart from it, so that runs without one never load torch."""

from __future__ import annotations

import numpy as np

CORRECTION, SIGMA, FLAGS = "correction_nm", "sigma_learned_nm", "flags_learned"
SCRATCH_LEARNED: dict[str, np.dtype] = {
    CORRECTION: np.dtype(np.float32),
    SIGMA: np.dtype(np.float32),
    FLAGS: np.dtype(np.uint8),
}
