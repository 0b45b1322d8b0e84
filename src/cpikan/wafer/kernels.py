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
            place = math.floor(math.atan2(y, x) / (2 * math.pi) * bins + 0.5) % bins
            farthest[place] = max(farthest[place], math.sqrt(square))


@compiled
def site_labels(start, frame, turn, grid, table, labels):  # type: ignore[no-untyped-def]
    """Number the pixels of rows from ``start`` by site, -1 outside.

    ``turn``: cosine and sine of the axes of the sites; ``grid``: width, height, left and bottom of the grid in mm, square of
    the radius; ``table`` (rows upwards, columns): number of each site.
    """
    for r in range(labels.shape[0]):
        y = (frame[1] - (start + r)) * frame[3]
        i, j, label = -1, -1, -1
        for c in range(labels.shape[1]):
            x = (c - frame[0]) * frame[2]
            labels[r, c] = -1
            if x * x + y * y <= grid[4]:
                u, v = x * turn[0] + y * turn[1] - grid[2], y * turn[0] - x * turn[1] - grid[3]
                if label < 0 or not (i * grid[0] <= u < (i + 1) * grid[0] and j * grid[1] <= v < (j + 1) * grid[1]):
                    i, j = math.floor(u / grid[0]), math.floor(v / grid[1])
                    label = table[j, i] if 0 <= i < table.shape[1] and 0 <= j < table.shape[0] else -1
                labels[r, c] = label


@compiled
def sector_labels(start, frame, inner_mm, outer_mm, borders, labels):  # type: ignore[no-untyped-def]
    """Number the pixels of rows from ``start`` by sector of an annulus, counter-clockwise from +x, -1 outside.

    ``borders`` (sectors + 1, 2) are cosine and sine of the borders. The sector of the pixel before is tried first.
    """
    count = borders.shape[0] - 1
    for r in range(labels.shape[0]):
        y = (frame[1] - (start + r)) * frame[3]
        label = -1
        for c in range(labels.shape[1]):
            x = (c - frame[0]) * frame[2]
            square = x * x + y * y
            labels[r, c] = -1
            if inner_mm * inner_mm <= square <= outer_mm * outer_mm:
                if (
                    label < 0
                    or count < 3
                    or borders[label, 0] * y < borders[label, 1] * x
                    or borders[label + 1, 0] * y >= borders[label + 1, 1] * x
                    or borders[label, 0] * x + borders[label, 1] * y < 0
                ):
                    turn = math.atan2(y, x) / (2 * math.pi)
                    label = min(math.floor((turn + (turn < 0)) * count), count - 1)
                labels[r, c] = label


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
            sector = min(math.floor((turn + (turn < 0)) * sectors), sectors - 1)
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
def window_rows(heights, start, grid, reach, spans, windows, tops, lows, counts):  # type: ignore[no-untyped-def]
    """Widen the extremes of circular windows by rows from ``start``, and count their valid pixels.

    ``grid``: first row and column of the centres, step of the rows and of the columns; ``reach`` (n,): half a chord in pixels
    by the distance of its row from the centre, -1 beyond the circle; ``spans`` (rows of the map, 2): columns [first, last)
    that count; ``windows`` (rows of windows, 2): windows [first, last) that lie within the spans. ``tops``, ``lows`` and
    ``counts`` are (rows, columns) of windows. Running extremes over powers of two make any chord the extreme of two.
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
        left_end, right_end = spans[row, 0], spans[row, 1]
        if first > last or left_end >= right_end:
            continue
        for c in range(left_end, right_end):
            value = heights[r, c]
            good = math.isfinite(value)
            high[0, c] = value if good else -math.inf
            low[0, c] = value if good else math.inf
            before[c + 1] = before[c] + good
        for k in range(1, levels):
            half = 1 << (k - 1)
            for c in range(left_end, right_end - 2 * half + 1):
                high[k, c] = max(high[k - 1, c], high[k - 1, c + half])
                low[k, c] = min(low[k - 1, c], low[k - 1, c + half])
        for i in range(first, last + 1):
            chord = reach[abs(row - grid[0] - i * grid[2])]
            k = 0
            while (2 << k) <= 2 * chord + 1:
                k += 1
            for j in range(windows[i, 0], windows[i, 1]):
                left = grid[1] + j * grid[3] - chord
                right = left + 2 * chord + 1 - (1 << k)
                tops[i, j] = max(tops[i, j], max(high[k, left], high[k, right]))
                lows[i, j] = min(lows[i, j], min(low[k, left], low[k, right]))
                counts[i, j] += before[left + 2 * chord + 1] - before[left]


@compiled
def cell_sums(heights, start, spans, forms, scale, cells, sums):  # type: ignore[no-untyped-def]
    """Add up rows less their forms by cells: ``sums`` (2, rows, columns) of heights and of valid pixels.

    ``spans`` (rows of the map, 2): columns [first, last) that count; ``forms`` (rows of the map, n): polynomial coefficients
    of (column - scale[0]) scale[1]; ``cells``: rows and columns of a cell, and the first column of cells.
    """
    degree, size = forms.shape[1] - 1, cells[1]
    for r in range(heights.shape[0]):
        row = start + r
        i, first, last = row // cells[0], spans[row, 0], spans[row, 1]
        for j in range(sums.shape[2]):
            total = count = 0.0
            begin = (j + cells[2]) * size
            for c in range(max(begin, first), min(begin + size, last)):
                z = heights[r, c]
                if math.isfinite(z):
                    t = (c - scale[0]) * scale[1]
                    form = forms[row, degree]
                    for k in range(degree - 1, -1, -1):
                        form = form * t + forms[row, k]
                    total += z - form
                    count += 1.0
            sums[0, i, j] += total
            sums[1, i, j] += count


@compiled
def remove_rows(heights, start, spans, forms, scale, cells, weights, long, out):  # type: ignore[no-untyped-def]
    """Take forms (see `cell_sums`) and long waves off rows; NaN outside the spans.

    ``long`` (rows, cells + 4) holds the waves in the middles of the cells, from two before the first; ``weights`` (pixels of
    a cell, 4) those of the four cells around each pixel of a cell: from two to the left, or one in its right half.
    """
    degree, size = forms.shape[1] - 1, weights.shape[0]
    for r in range(heights.shape[0]):
        row = start + r
        first, last = spans[row, 0], spans[row, 1]
        out[r, :] = math.nan
        for j in range(long.shape[1] - 4):
            begin = (j + cells[2]) * size
            for c in range(max(begin, first), min(begin + size, last)):
                t = (c - scale[0]) * scale[1]
                form = forms[row, degree]
                for k in range(degree - 1, -1, -1):
                    form = form * t + forms[row, k]
                place = c - begin
                near = j + (2 * place + 1 >= size)
                wave = weights[place, 0] * long[r, near] + weights[place, 1] * long[r, near + 1]
                wave += weights[place, 2] * long[r, near + 2] + weights[place, 3] * long[r, near + 3]
                out[r, c] = heights[r, c] - form - wave
