"""Mosaic Flow: sweeps, rate and error of many boxes with an exact solver and with a learned one.

    python benchmarks/mosaic_flow.py [CASE ...]

Laplace's equation on domains of 4 to 32 boxes a side, 8 x 8 cells each, float64, one core; a smooth function with several
scales stands on the edge, and errors are relative L2 against the five-point equations solved as a whole. `rate` is the
contraction of the error by a sweep at the end, `start` how the grid begins, `box_error` that of the local solver on edges that
it has not seen, `train_s` its training. Lines replace those of their case in results/mosaic_flow.csv.
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
from scipy.sparse import diags_array, eye_array, kron
from scipy.sparse.linalg import splu

from cpikan.learning.learned_box import LearnedBox, random_edges, train_box
from cpikan.learning.mosaic_flow import HarmonicBox, MosaicFlow, nested_start, smooth_start

CSV = Path(__file__).parent / "results" / "mosaic_flow.csv"
FIELDS = ("case", "boxes", "start", "sweeps", "error", "start_error", "rate", "box_error", "train_s", "processor_s")
CELLS, FEW, LOOK = 8, 50, 20
CASES = {
    **{f"exact {n}": (n, "exact", "smooth", 10_000) for n in (4, 8, 16, 32)},
    **{f"exact {n} nested": (n, "exact", "nested", FEW) for n in (4, 8, 16, 32)},
    **{f"learned {n} nested": (n, "learned", "nested", FEW) for n in (4, 8, 16, 32)},
}


def edged(shape: tuple[int, int], boxes: int) -> np.ndarray:
    """Put values on the edge of a grid: waves over the whole and over few boxes."""
    y, x = np.linspace(0, 1, shape[0])[:, None], np.linspace(0, 1, shape[1])
    values = np.sin(3 * x + 0.3) * np.exp(y) + 0.3 * np.cos(2 * np.pi * boxes / 4 * (x + y))
    values[1:-1, 1:-1] = 0
    return values


def as_a_whole(values: np.ndarray) -> np.ndarray:
    """Solve the five-point equations by one sparse factor."""
    rows, columns = (n - 2 for n in values.shape)

    def line(n: int) -> diags_array:
        return diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1], shape=(n, n))

    right = np.zeros((rows, columns))
    right[0] += values[0, 1:-1]
    right[-1] += values[-1, 1:-1]
    right[:, 0] += values[1:-1, 0]
    right[:, -1] += values[1:-1, -1]
    system = (kron(line(rows), eye_array(columns)) + kron(eye_array(rows), line(columns))).tocsc()
    found = values.copy()
    found[1:-1, 1:-1] = splu(system, permc_spec="MMD_AT_PLUS_A").solve(right.ravel()).reshape(rows, columns)
    return found


@functools.cache
def learned() -> tuple[LearnedBox, float]:
    """Train the box once, and tell the processor seconds."""
    begun = time.process_time()
    return train_box(CELLS, hidden=128, degree=3, steps=600), time.process_time() - begun


def row(name: str) -> dict[str, object]:
    """Solve a case."""
    boxes, kind, start, most = CASES[name]
    exact = HarmonicBox(CELLS)
    local, train_s = (exact, 0.0) if kind == "exact" else learned()
    edges = random_edges(CELLS, 2000, np.random.default_rng(99))
    flow = MosaicFlow(local, CELLS, (2 * boxes, 2 * boxes))
    values = edged(flow.shape, boxes)
    truth = as_a_whole(values)

    def error(found: np.ndarray) -> float:
        return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))

    begun = time.process_time()
    first = smooth_start(values) if start == "smooth" else nested_start(flow, values, FEW)
    found = flow.solve(first, 1e-10, most)
    taken = time.process_time() - begun
    lines = np.zeros(flow.shape, dtype=bool)  # on which edges of boxes lie: all that sweeps move
    lines[:: CELLS // 2] = lines[:, :: CELLS // 2] = True
    on = first.copy()
    for _ in range(min(found.sweeps, 40 * boxes)):  # by then what is left is one function, far above rounding
        flow.sweep(on)
    before = np.linalg.norm((on - truth)[lines])
    for _ in range(LOOK):
        flow.sweep(on)
    rate = (np.linalg.norm((on - truth)[lines]) / before) ** (1 / LOOK)
    wanted = exact(edges)
    return {
        "case": name,
        "boxes": boxes,
        "start": start,
        "sweeps": found.sweeps,
        "error": f"{error(found.values):.2g}",
        "start_error": f"{error(smooth_start(values)):.2g}",
        "rate": f"{rate:.4f}" if kind == "exact" and start == "smooth" else "",
        "box_error": f"{np.linalg.norm(local(edges) - wanted) / np.linalg.norm(wanted):.2g}",
        "train_s": f"{train_s:.1f}",
        "processor_s": f"{taken:.2g}",
    }


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
