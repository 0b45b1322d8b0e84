"""Mosaic Flow: sweeps, rate and error of many boxes with an exact solver and with a learned one.

    python benchmarks/mosaic_flow.py [CASE ...]

Laplace's equation on domains of 4 to 64 boxes a side, 8 x 8 cells each, float64, one core; a smooth function with several
scales stands on the edge, and errors are relative L2 against the five-point equations solved as a whole. `rate` is the
contraction of the error by a sweep at the end, `way` how the grid is solved (sweeps alone, or levels), `sweeps` those over the
whole domain, `box_error` that of the local solver on edges that it has not seen, `train_s` its training. Lines replace those of
their case in results/mosaic_flow.csv.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch

from cpikan.learning.learned_box import LearnedBox, random_edges, train_box
from cpikan.learning.mosaic_flow import HarmonicBox, MosaicFlow, harmonic, smooth_start
from cpikan.learning.mosaic_levels import solve_mosaic

CSV = Path(__file__).parent / "results" / "mosaic_flow.csv"
FIELDS = ("case", "boxes", "way", "sweeps", "error", "start_error", "rate", "box_error", "train_s", "processor_s")
CELLS, LOOK = 8, 20
CASES = {
    **{f"exact {n}": (n, "exact", "sweeps") for n in (4, 8, 16, 32)},
    **{f"exact {n} levels": (n, "exact", "levels") for n in (4, 8, 16, 32, 64)},
    **{f"learned {n} levels": (n, "learned", "levels") for n in (4, 8, 16, 32)},
}


def edged(shape: tuple[int, int], boxes: int) -> np.ndarray:
    """Put values on the edge of a grid: waves over the whole and over few boxes."""
    y, x = np.linspace(0, 1, shape[0])[:, None], np.linspace(0, 1, shape[1])
    values = np.sin(3 * x + 0.3) * np.exp(y) + 0.3 * np.cos(2 * np.pi * boxes / 4 * (x + y))
    values[1:-1, 1:-1] = 0
    return values


@functools.cache
def learned() -> tuple[LearnedBox, float]:
    """Train the box once, and tell the processor seconds."""
    begun = time.process_time()
    return train_box(CELLS, hidden=128, degree=3, steps=600), time.process_time() - begun


def row(name: str) -> dict[str, object]:
    """Solve a case."""
    boxes, kind, way = CASES[name]
    exact = HarmonicBox(CELLS)
    local, train_s = (exact, 0.0) if kind == "exact" else learned()
    edges = random_edges(CELLS, 2000, np.random.default_rng(99))
    flow = MosaicFlow(local, CELLS, (2 * boxes, 2 * boxes))
    values = edged(flow.shape, boxes)
    truth = harmonic(values)

    def error(found: np.ndarray) -> float:
        return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))

    begun = time.process_time()
    first = smooth_start(values)
    found = flow.solve(first, 1e-10, 10_000) if way == "sweeps" else solve_mosaic(flow, values, 1e-10)
    taken = time.process_time() - begun
    wanted = exact(edges)
    return {
        "case": name,
        "boxes": boxes,
        "way": way,
        "sweeps": found.sweeps,
        "error": f"{error(found.values):.2g}",
        "start_error": f"{error(smooth_start(values)):.2g}",
        "rate": f"{contraction(flow, first, truth, min(found.sweeps, 40 * boxes)):.4f}" if way == "sweeps" else "",
        "box_error": f"{np.linalg.norm(local(edges) - wanted) / np.linalg.norm(wanted):.2g}",
        "train_s": f"{train_s:.1f}",
        "processor_s": f"{taken:.2g}",
    }


def contraction(flow: MosaicFlow, values: np.ndarray, truth: np.ndarray, sweeps: int) -> float:
    """Measure by how much a sweep contracts the error after so many: one function is left then, far above rounding."""
    lines = np.zeros(flow.shape, dtype=bool)  # on which edges of boxes lie: all that sweeps move
    lines[:: CELLS // 2] = lines[:, :: CELLS // 2] = True
    left = values.copy()
    for _ in range(sweeps):
        flow.sweep(left)
    before = np.linalg.norm((left - truth)[lines])
    for _ in range(LOOK):
        flow.sweep(left)
    return float((np.linalg.norm((left - truth)[lines]) / before) ** (1 / LOOK))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    torch.set_num_threads(1)
    for name in parser.parse_args().cases or CASES:
        found = row(name)
        print(found, flush=True)
        lines: dict[str, dict[str, object]] = {}
        if CSV.is_file():
            with CSV.open(newline="") as file:
                lines = {one["case"]: dict(one) for one in csv.DictReader(file)}
        lines[name] = found
        with CSV.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines[one] for one in CASES if one in lines)


if __name__ == "__main__":
    main()
