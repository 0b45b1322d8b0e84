"""Watershed and Wolf pruning by bands of rows: ways down, basins, where basins meet, and which of them join."""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled

PIT, MISSING = 4, 9  # ways: 0 to 8 are the neighbours of a pixel, row by row, 4 is itself


@compiled
def earlier(heights, v, u, y, x):  # type: ignore[no-untyped-def]
    """Tell whether a pixel (v, u) floods before (y, x): it is lower, or as high and stored before it."""
    one, other = heights[v, u], heights[y, x]
    return one < other or (one == other and (v < y or (v == y and u < x)))


@compiled
def descend(heights, first, last, ways):  # type: ignore[no-untyped-def]
    """Fill ``ways`` of rows [first, last) of a band: which of eight neighbours is the lowest that floods earlier.

    The row above ``first`` and that below ``last`` are part of the band where the map has them.
    """
    rows, columns = heights.shape
    for y in range(first, last):
        for x in range(columns):
            if not np.isfinite(heights[y, x]):
                ways[y - first, x] = MISSING
                continue
            way, lowest = PIT, np.inf
            for k in range(9):
                v, u = y + k // 3 - 1, x + k % 3 - 1
                if k == PIT or v < 0 or u < 0 or v >= rows or u >= columns or not np.isfinite(heights[v, u]):
                    continue
                if heights[v, u] < lowest and earlier(heights, v, u, y, x):
                    way, lowest = k, heights[v, u]
            ways[y - first, x] = way


@compiled
def fill_basins(ways, basins):  # type: ignore[no-untyped-def]
    """Number the pits of ``ways`` (H, W) row by row and every pixel by the pit it runs down to, -1 where it is missing."""
    rows, columns = ways.shape
    count = 0
    for y in range(rows):
        for x in range(columns):
            basins[y, x] = -1
            if ways[y, x] == PIT:
                basins[y, x] = count
                count += 1
    for y in range(rows):
        for x in range(columns):
            if ways[y, x] == MISSING or basins[y, x] >= 0:
                continue
            v, u = y, x
            while basins[v, u] < 0:
                k = ways[v, u]
                v, u = v + k // 3 - 1, u + k % 3 - 1
            number, v, u = basins[v, u], y, x
            while basins[v, u] < 0:
                basins[v, u] = number
                k = ways[v, u]
                v, u = v + k // 3 - 1, u + k % 3 - 1
    return count


@compiled
def meetings(heights, basins, first, last, edge, ends, levels):  # type: ignore[no-untyped-def]
    """Find where basins meet in rows [first, last) of a band: pairs ``ends`` (n, 2), the lower number first, and the heights
    ``levels`` at which they do, in the order of the pixels; returns n, of which no more are kept than there is room for.

    ``edge`` is set for basins that have a pixel beside the map's edge or beside a missing one.
    """
    rows, columns = heights.shape
    count = 0
    for y in range(first, last):
        for x in range(columns):
            own = basins[y, x]
            if own < 0:
                continue
            for k in range(9):
                v, u = y + k // 3 - 1, x + k % 3 - 1
                if v < 0 or u < 0 or v >= rows or u >= columns or basins[v, u] < 0:
                    edge[own] = True
                    continue
                other = basins[v, u]
                if other != own and earlier(heights, v, u, y, x):
                    if count < len(levels):
                        ends[count, 0], ends[count, 1] = min(own, other), max(own, other)
                        levels[count] = heights[y, x]
                    count += 1
    return count


@compiled
def root(parent, basin):  # type: ignore[no-untyped-def]
    """Find the deepest basin of a dale, and shorten the way there."""
    end = basin
    while parent[end] != end:
        end = parent[end]
    while parent[basin] != end:
        parent[basin], basin = end, parent[basin]
    return end


@compiled
def join_dales(ends, levels, order, deepest, threshold, parent, spill):  # type: ignore[no-untyped-def]
    """Join basins where they meet, from the lowest meeting on; ``parent`` of each basin, and where the others overflow.

    The shallower of two dales joins the deeper one if it is less than ``threshold`` deep there; else both stay, and overflow
    at this height if they have not before. At the start each basin is its own parent, and ``spill`` infinite.
    """
    for k in order:
        one, other, height = root(parent, ends[k, 0]), root(parent, ends[k, 1]), levels[k]
        if one == other:
            continue
        low, high = deepest[one], deepest[other]
        if low < high or (low == high and one < other):
            one, other = other, one
        shallow = deepest[one]
        if height - shallow < threshold or height == shallow:
            parent[one] = other
        else:
            spill[one], spill[other] = min(spill[one], height), min(spill[other], height)


@compiled
def pour(heights, basins, dales, spill, sizes, water):  # type: ignore[no-untyped-def]
    """Add the pixels of a band to the ``sizes`` of their dales, and what they lie below ``spill`` to their ``water``."""
    for y in range(heights.shape[0]):
        for x in range(heights.shape[1]):
            if basins[y, x] >= 0:
                dale = dales[basins[y, x]]
                sizes[dale] += 1
                if spill[dale] < np.inf and heights[y, x] < spill[dale]:
                    water[dale] += spill[dale] - heights[y, x]
