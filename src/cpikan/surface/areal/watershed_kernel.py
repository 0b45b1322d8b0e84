"""Watershed and Wolf pruning in one flood: pixels from low to high, dales that join where a shallow one overflows."""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled


@compiled
def root(parent, pixel):  # type: ignore[no-untyped-def]
    """Find the lowest pixel of the dale of a pixel, and shorten the way there."""
    end = pixel
    while parent[end] != end:
        end = parent[end]
    while parent[pixel] != end:
        parent[pixel], pixel = end, parent[pixel]
    return end


@compiled
def flood(heights, order, threshold, parent, spill):  # type: ignore[no-untyped-def]
    """Flood ``heights`` (H, W) in the ``order`` of flat indices: fill ``parent`` and the heights ``spill`` of overflow.

    A pixel belongs to the dale of its lowest neighbour of eight. Where two dales meet, the shallower one joins the deeper
    one if it is less than ``threshold`` deep there; else both stay, and overflow at this height if they have not before.
    ``parent`` is -1 and ``spill`` infinite everywhere at the start.
    """
    rows, columns = heights.shape
    around = np.empty(8, np.int64)
    for pixel in order:
        y, x = pixel // columns, pixel % columns
        height, count, lowest = heights[y, x], 0, -1
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                v, u = y + dy, x + dx
                if v < 0 or u < 0 or v >= rows or u >= columns or parent[v * columns + u] < 0:
                    continue
                around[count] = v * columns + u
                if lowest < 0 or heights[v, u] < heights[lowest // columns, lowest % columns]:
                    lowest = v * columns + u
                count += 1
        if lowest < 0:
            parent[pixel] = pixel
            continue
        parent[pixel] = root(parent, lowest)
        for k in range(count):
            one, other = root(parent, around[k]), root(parent, pixel)
            if one == other:
                continue
            low, high = heights[one // columns, one % columns], heights[other // columns, other % columns]
            if low < high or (low == high and one < other):
                one, other, high = other, one, low
            shallow = heights[one // columns, one % columns]
            if height - shallow < threshold or height == shallow:
                parent[one] = other
            else:
                spill[one], spill[other] = min(spill[one], height), min(spill[other], height)
