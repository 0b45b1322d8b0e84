"""Unwrapping of a tile without inconsistencies: one raster scan, since there every path gives the same orders."""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.unwrap.union_find import find_root

_PER_TURN = np.float32(1 / (2 * np.pi))


@compiled(inline="always")
def order_step(here: np.float32, there: np.float32) -> int:
    """Find the order of ``there`` minus that of ``here`` that makes their unwrapped difference at most pi."""
    return -int(np.rint((there - here) * _PER_TURN))


@compiled
def raster_unwrap(phase_rad: np.ndarray, orders: np.ndarray, labels: np.ndarray) -> int:
    """Fill ``orders`` and ``labels`` (both int32, shape of ``phase_rad`` float32; NaN = no pixel, label 0).

    Runs of valid pixels in a row are joined to the runs above by a weighted union-find. Returns the number of
    4-connected components, or -1 as soon as two paths disagree (a residue, or a winding around a hole); then the
    contents of the outputs are undefined.
    """
    height, width = phase_rad.shape
    capacity = (height * width) // 2 + height + 1
    parent = np.empty(capacity, np.int32)
    value = np.empty(capacity, np.int32)
    runs = 0
    for y in range(height):
        above = -1  # run in the row above that the current run was last compared with
        need = 0
        for x in range(width):
            here = phase_rad[y, x]
            if not np.isfinite(here):
                labels[y, x] = 0
                orders[y, x] = 0
                continue
            if x > 0 and labels[y, x - 1] > 0:
                order = orders[y, x - 1] + order_step(phase_rad[y, x - 1], here)
            else:
                parent[runs], value[runs] = runs, 0
                runs += 1
                order = 0
                above = -1
            orders[y, x] = order
            labels[y, x] = runs
            if y == 0 or labels[y - 1, x] == 0:
                continue
            upper = labels[y - 1, x] - 1
            shift = orders[y - 1, x] + order_step(phase_rad[y - 1, x], here) - order
            if upper == above:
                if shift != need:
                    return -1
                continue
            above, need = upper, shift
            this = runs - 1
            root_a, root_b = find_root(parent, value, upper), find_root(parent, value, this)
            step = value[upper] + shift - value[this]
            if root_a != root_b:
                parent[root_b], value[root_b] = root_a, step
            elif step != 0:
                return -1
    return _number_runs(orders, labels, parent, value, runs)


@compiled
def _number_runs(orders: np.ndarray, labels: np.ndarray, parent: np.ndarray, value: np.ndarray, runs: int) -> int:
    """Replace run numbers by component numbers (1, 2, ... by first pixel) and shift the orders of each run."""
    number = np.zeros(runs, np.int32)
    component = np.empty(runs, np.int32)
    count = 0
    for run in range(runs):
        root = find_root(parent, value, run)
        if number[root] == 0:
            count += 1
            number[root] = count
        component[run] = number[root]
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            run = labels[y, x] - 1
            if run >= 0:
                orders[y, x] += value[run]
                labels[y, x] = component[run]
    return count
