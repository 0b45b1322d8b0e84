"""Loops over the pixels of a band for all wafer numbers; a pixel that is not finite was not measured.

A place on the wafer is (x, y) in mm from its centre, x to the right and y up, row 0 on top. ``frame`` holds what leads there
from pixels: column and row of the centre, width and height of a pixel in mm.
"""

from __future__ import annotations

import math

import numpy as np

from cpikan.compiled import compiled


@compiled
def outline_rows(heights, start, row_ends, column_ends):  # type: ignore[no-untyped-def]
    """Widen the first and last valid pixels of rows (2, H) and columns (2, W), -1 where there is none yet."""
    for r in range(heights.shape[0]):
        row = start + r
        for c in range(heights.shape[1]):
            if math.isfinite(heights[r, c]):
                if row_ends[0, row] < 0:
                    row_ends[0, row] = c
                row_ends[1, row] = c
                if column_ends[0, c] < 0:
                    column_ends[0, c] = row
                column_ends[1, c] = row


@compiled
def outermost_rows(heights, start, frame, inner_mm, outer_mm, farthest):  # type: ignore[no-untyped-def]
    """Raise ``farthest`` (bins), the greatest radius in mm of a valid pixel by polar angle, within an annulus."""
    bins = farthest.size
    for r in range(heights.shape[0]):
        y = (frame[1] - (start + r)) * frame[3]
        if abs(y) > outer_mm:
            continue
        for c in range(heights.shape[1]):
            x = (c - frame[0]) * frame[2]
            square = x * x + y * y
            if square < inner_mm * inner_mm or square > outer_mm * outer_mm or not math.isfinite(heights[r, c]):
                continue
            place = int(math.floor(math.atan2(y, x) / (2 * math.pi) * bins + 0.5)) % bins
            farthest[place] = max(farthest[place], math.sqrt(square))


@compiled
def site_labels(start, frame, turn, grid, table, labels):  # type: ignore[no-untyped-def]
    """Number the pixels of rows from ``start`` by site, -1 outside.

    ``turn``: cosine and sine of the axes of the sites; ``grid``: width, height, left and bottom of the grid in mm, square of
    the radius; ``table`` (rows upwards, columns): number of each site.
    """
    for r in range(labels.shape[0]):
        y = (frame[1] - (start + r)) * frame[3]
        for c in range(labels.shape[1]):
            x = (c - frame[0]) * frame[2]
            labels[r, c] = -1
            if x * x + y * y <= grid[4]:
                i = int(math.floor((x * turn[0] + y * turn[1] - grid[2]) / grid[0]))
                j = int(math.floor((y * turn[0] - x * turn[1] - grid[3]) / grid[1]))
                if 0 <= i < table.shape[1] and 0 <= j < table.shape[0]:
                    labels[r, c] = table[j, i]


@compiled
def sector_labels(start, frame, inner_mm, outer_mm, count, labels):  # type: ignore[no-untyped-def]
    """Number the pixels of rows from ``start`` by sector of an annulus, counter-clockwise from +x, -1 outside."""
    for r in range(labels.shape[0]):
        y = (frame[1] - (start + r)) * frame[3]
        for c in range(labels.shape[1]):
            x = (c - frame[0]) * frame[2]
            square = x * x + y * y
            labels[r, c] = -1
            if inner_mm * inner_mm <= square <= outer_mm * outer_mm:
                turn = math.atan2(y, x) / (2 * math.pi)
                labels[r, c] = min(int(math.floor((turn + (turn < 0)) * count)), count - 1)


@compiled
def region_sums(heights, labels, start, frame, centres, sums):  # type: ignore[no-untyped-def]
    """Add up pixels by label: count, x, y, x^2, xy, y^2, z, xz, yz with (x, y) from ``centres`` (regions, 2) in mm."""
    part = np.zeros(9)
    for r in range(heights.shape[0]):
        y_row = (frame[1] - (start + r)) * frame[3]
        label, x0, y = -1, 0.0, 0.0
        for c in range(heights.shape[1]):
            if labels[r, c] != label:  # a run of one region is summed on its own: fast, and exact to its own size
                if label >= 0:
                    for k in range(9):
                        sums[label, k] += part[k]
                part[:] = 0.0
                label = labels[r, c]
                if label >= 0:
                    x0, y = centres[label, 0], y_row - centres[label, 1]
            z = heights[r, c]
            if label < 0 or not math.isfinite(z):
                continue
            x = (c - frame[0]) * frame[2] - x0
            part[0] += 1.0
            part[1] += x
            part[2] += y
            part[3] += x * x
            part[4] += x * y
            part[5] += y * y
            part[6] += z
            part[7] += x * z
            part[8] += y * z
        if label >= 0:
            for k in range(9):
                sums[label, k] += part[k]


@compiled
def region_ranges(heights, labels, start, frame, planes, low, high):  # type: ignore[no-untyped-def]
    """Widen ``low`` and ``high`` (regions, planes): distances of heights from planes a + b x + c y, by label.

    ``planes`` (regions, planes, 3) count from the wafer's centre.
    """
    count = planes.shape[1]
    for r in range(heights.shape[0]):
        y = (frame[1] - (start + r)) * frame[3]
        for c in range(heights.shape[1]):
            label, z = labels[r, c], heights[r, c]
            if label < 0 or not math.isfinite(z):
                continue
            x = (c - frame[0]) * frame[2]
            for k in range(count):
                rest = z - (planes[label, k, 0] + planes[label, k, 1] * x + planes[label, k, 2] * y)
                low[label, k] = min(low[label, k], rest)
                high[label, k] = max(high[label, k], rest)


@compiled
def radial_sums(heights, start, frame, windows, sectors, sums):  # type: ignore[no-untyped-def]
    """Add up pixels by radius and sector: ``windows`` (n, 2) are middle and half width in mm, ``sums`` (n, sectors, 8).

    Sums of 1, r, r^2, r^3, r^4, z, r z, r^2 z with r from the middle of the window. Sectors count counter-clockwise from +x.
    """
    reach, least = 0.0, math.inf
    for n in range(windows.shape[0]):
        reach, least = max(reach, windows[n, 0] + windows[n, 1]), min(least, windows[n, 0] - windows[n, 1])
    least = max(least, 0.0)
    for i in range(heights.shape[0]):
        y = (frame[1] - (start + i)) * frame[3]
        for c in range(heights.shape[1]):
            x, z = (c - frame[0]) * frame[2], heights[i, c]
            square = x * x + y * y
            if square < least * least or square > reach * reach or not math.isfinite(z):
                continue
            radius, turn = math.sqrt(square), math.atan2(y, x) / (2 * math.pi)
            sector = min(int(math.floor((turn + (turn < 0)) * sectors)), sectors - 1)
            for n in range(windows.shape[0]):
                r = radius - windows[n, 0]
                if abs(r) > windows[n, 1]:
                    continue
                one = sums[n, sector]
                one[0] += 1.0
                one[1] += r
                one[2] += r * r
                one[3] += r * r * r
                one[4] += r * r * r * r
                one[5] += z
                one[6] += r * z
                one[7] += r * r * z


@compiled
def window_rows(heights, start, grid, reach, tops, lows, counts):  # type: ignore[no-untyped-def]
    """Widen the extremes of circular windows by rows from ``start``, and count their valid pixels.

    ``grid``: first row and column of the centres, step of the rows and of the columns; ``reach`` (n,): half a chord in pixels
    by the distance of its row from the centre, -1 beyond the circle. ``tops``, ``lows`` and ``counts`` are (rows, columns) of
    windows. Running extremes over powers of two make any chord the extreme of two: of as many pixels as it takes.
    """
    width, far = heights.shape[1], 0
    while far + 1 < reach.size and reach[far + 1] >= 0:
        far += 1
    levels = 1
    while (1 << levels) <= 2 * reach[0] + 1:
        levels += 1
    high, low = np.empty((levels, width)), np.empty((levels, width))
    before = np.zeros(width + 1, np.int32)
    for r in range(heights.shape[0]):
        row = start + r
        first = max(0, -((far - row + grid[0]) // grid[2]))
        last = min(tops.shape[0] - 1, (row + far - grid[0]) // grid[2])
        if first > last:
            continue
        for c in range(width):
            value = heights[r, c]
            good = math.isfinite(value)
            high[0, c] = value if good else -math.inf
            low[0, c] = value if good else math.inf
            before[c + 1] = before[c] + good
        if before[width] == 0:
            continue
        for k in range(1, levels):
            half = 1 << (k - 1)
            for c in range(width - 2 * half + 1):
                high[k, c] = max(high[k - 1, c], high[k - 1, c + half])
                low[k, c] = min(low[k - 1, c], low[k - 1, c + half])
        for i in range(first, last + 1):
            chord = reach[abs(row - grid[0] - i * grid[2])]
            k = 0
            while (2 << k) <= 2 * chord + 1:
                k += 1
            for j in range(tops.shape[1]):
                left = grid[1] + j * grid[3] - chord
                right = left + 2 * chord + 1 - (1 << k)
                tops[i, j] = max(tops[i, j], high[k, left], high[k, right])
                lows[i, j] = min(lows[i, j], low[k, left], low[k, right])
                counts[i, j] += before[left + 2 * chord + 1] - before[left]
