"""Orders where even the smoothed phase is noise: pixel by pixel to fewer jumps."""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.unwrap.raster import order_step

_PER_TURN = np.float32(1 / (2 * np.pi))
_TRUST = np.float32(200)  # price of one squared turn from the surface at full coherence, in jumps of one turn
_LEAST_GAIN = np.float32(1e-3)  # so that rounding cannot move a pixel to and fro


@compiled
def fewer_jumps(phase_rad: np.ndarray, orders: np.ndarray, surface_rad: np.ndarray, coherence: np.ndarray) -> int:
    """Change ``orders`` (int32, in place) by whole turns where that leaves fewer jumps to the four neighbours.

    What is minimised is the sum of the jumps in turns (as in PUMA: Bioucas-Dias, Valadao, IEEE TIP 16, 698 (2007), with
    exponent one) plus, per pixel, 200 ``coherence``^2 times the square of its distance in turns from the unwrapped
    smoothed ``surface_rad``, all (h, w) float32. So pixels stay nearest to the surface where it is one, and noise alone
    is not cut into more pieces than it must be. Single pixels move until none gains (iterated conditional modes).
    Returns the number of moves.
    """
    height, width = phase_rad.shape
    queued = np.zeros(height * width, np.bool_)
    queue = np.empty(height * width, np.int32)
    count = 0
    for y in range(height):
        if not _row_jumps(phase_rad, orders, y):
            continue
        for x in range(width):
            if _has_jump(phase_rad, orders, y, x):
                queue[count] = y * width + x
                queued[y * width + x] = True
                count += 1
    moves, first = 0, 0
    while count > 0:
        here = queue[first]
        first = first + 1 if first + 1 < queue.size else 0
        count -= 1
        queued[here] = False
        y, x = here // width, here % width
        step = _best_move(phase_rad, orders, surface_rad, coherence, y, x)
        if step == 0:
            continue
        orders[y, x] += step
        moves += 1
        for dy, dx in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
            row, column = y + dy, x + dx
            if 0 <= row < height and 0 <= column < width and np.isfinite(phase_rad[row, column]):
                near = row * width + column
                if not queued[near]:
                    last = first + count
                    queue[last if last < queue.size else last - queue.size] = near
                    queued[near] = True
                    count += 1
    return moves


@compiled
def _row_jumps(phase_rad: np.ndarray, orders: np.ndarray, y: int) -> bool:
    """Test whether any pixel of a row has a jump to a neighbour; without branches, so that it runs on whole vectors."""
    here, order = phase_rad[y], orders[y]
    found = _any_jump(here[:-1], here[1:], order[:-1], order[1:])
    if y > 0:
        found = found or _any_jump(here, phase_rad[y - 1], order, orders[y - 1])
    if y + 1 < phase_rad.shape[0]:
        found = found or _any_jump(here, phase_rad[y + 1], order, orders[y + 1])
    return found


@compiled
def _any_jump(a: np.ndarray, b: np.ndarray, order_a: np.ndarray, order_b: np.ndarray) -> bool:
    count = np.int32(0)
    for x in range(a.size):
        jump = np.float32(order_b[x] - order_a[x]) + np.rint((b[x] - a[x]) * _PER_TURN)
        count += np.int32(abs(jump) > 0)  # false where one is NaN
    return bool(count > 0)


@compiled(inline="always")
def _has_jump(phase_rad: np.ndarray, orders: np.ndarray, y: int, x: int) -> bool:
    here = phase_rad[y, x]
    if not np.isfinite(here):
        return False
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        row, column = y + dy, x + dx
        if 0 <= row < phase_rad.shape[0] and 0 <= column < phase_rad.shape[1]:
            there = phase_rad[row, column]
            if np.isfinite(there) and orders[row, column] - orders[y, x] != order_step(here, there):
                return True
    return False


@compiled(inline="always")
def _best_move(
    phase_rad: np.ndarray, orders: np.ndarray, surface_rad: np.ndarray, coherence: np.ndarray, y: int, x: int
) -> int:
    """Find the step (-1, 0 or 1) of the pixel's order that lowers the sum most."""
    here, order = phase_rad[y, x], orders[y, x]
    away = (here - surface_rad[y, x]) * _PER_TURN + np.float32(order)
    trust = _TRUST * coherence[y, x] * coherence[y, x]
    up, down = trust * (1 + 2 * away), trust * (1 - 2 * away)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        row, column = y + dy, x + dx
        if 0 <= row < phase_rad.shape[0] and 0 <= column < phase_rad.shape[1]:
            there = phase_rad[row, column]
            if np.isfinite(there):
                jump = order - orders[row, column] + order_step(here, there)
                up += abs(jump + 1) - abs(jump)
                down += abs(jump - 1) - abs(jump)
    if min(up, down) > -_LEAST_GAIN:
        return 0
    return 1 if up <= down else -1
