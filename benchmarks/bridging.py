"""Gaps between components of one wavelength: how many are bridged, by how many whole turns, and which stay.

    python benchmarks/bridging.py [--draws 12]

Random smooth surfaces (white noise smoothed by a Gaussian), cut by a band or by a closed moat, the far side raised by a random
number of whole turns, and by a random step of up to half a turn where said. Writes results/bridging.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy import ndimage
from threadpoolctl import threadpool_limits

from cpikan.psi.refine.joining import join_components
from cpikan.psi.refine.unwrapped import UnwrappedBlocks, UnwrappedRows

SHAPE = (600, 900)
NOISE_RAD = 0.1
RESULTS = Path(__file__).parent / "results" / "bridging.csv"


def surface(rng: np.random.Generator, length_px: float, rms_turns: float) -> np.ndarray:
    """Turns (H, W); the Gaussian has a standard deviation of ``length_px``."""
    coarse = ndimage.gaussian_filter(rng.normal(size=(SHAPE[0] // 10 + 60, SHAPE[1] // 10 + 60)), length_px / 10)
    whole = ndimage.zoom(coarse[28:-28, 28:-28], 10.0, order=3)[: SHAPE[0], : SHAPE[1]]
    return np.asarray(whole / whole.std() * rms_turns)


def outcome(turns: np.ndarray, kept: np.ndarray, step: float, whole: int, rng: np.random.Generator) -> str:
    """``right``, ``stays`` or ``wrong``."""
    component = ndimage.label(kept)[0].astype(np.int32)
    noisy = turns + rng.normal(0, NOISE_RAD / (2 * np.pi), turns.shape) + (whole + step) * (component == 2)
    order = np.rint(noisy)
    phase = np.where(kept, (noisy - order) * 2 * np.pi, np.nan).astype(np.float32)
    sigma = np.full(SHAPE, NOISE_RAD, np.float32)
    blocks = UnwrappedBlocks.empty(SHAPE, 2)
    blocks.add(UnwrappedRows(phase, sigma, order.astype(np.int32), component), 0)
    joined = join_components(blocks)
    if not joined.joined:
        return "stays"
    return "right" if int(joined.level[2] - joined.level[1]) == -whole else "wrong"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=12)
    draws = parser.parse_args().draws
    y, x = np.indices(SHAPE)
    rows = []
    for rms in (0.3, 1.0, 3.0):
        for length in (200, 100, 50):
            for gap in (40, 100, 200):
                for stepped in (False, True):
                    rng, count = np.random.default_rng(1), dict.fromkeys(("right", "stays", "wrong"), 0)
                    for k in range(draws):
                        radius = np.hypot(y - 300, x - 450)
                        gone = (x >= 400) & (x < 400 + gap) if k % 2 else (radius > 90) & (radius < 90 + gap)
                        step = float(rng.uniform(-0.5, 0.5)) if stepped else 0.0
                        whole = int(rng.integers(-5, 6))
                        count[outcome(surface(rng, length, rms), ~gone, step, whole, rng)] += 1
                    rows.append({"rms_turns": rms, "length_px": length, "gap_px": gap, "step": stepped, **count})
                    print(rows[-1], flush=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    with threadpool_limits(limits=1, user_api="blas"):
        main()
