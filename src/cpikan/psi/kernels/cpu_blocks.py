"""Compiled loops of the CPU's pixel pass: a row is worked through in blocks that stay in the second-level cache.

Demodulate every wavelength, search the order, form the height: all loops over pixels are branch-free, so that LLVM turns
them into vector code. No result depends on how rows are grouped into bands or shared among threads.
"""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.cpu_phasors import BLOCK, TURN, demodulate, empty, field_buffers, field_row, inlined, jit
from cpikan.psi.model.flags import Flag

_f = np.float32
_ROUND = _f(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds a float32 to the nearest integer
_INVALID, _SATURATED = int(Flag.INVALID), int(Flag.SATURATED)
_LOW, _AMBIGUOUS = int(Flag.LOW_MODULATION), int(Flag.AMBIGUOUS)
_LARGE = _f(1e30)


@jit
def sum_buffers():  # type: ignore[no-untyped-def]
    """For the sums of one wavelength over a block: u, v, mean, largest sample."""
    return empty(), empty(), empty(), empty()


@jit
def mark_buffers():  # type: ignore[no-untyped-def]
    """For what all wavelengths say of a block: signal over noise, modulation, clipped, weak; and whether the mask keeps it."""
    return empty(), empty(), empty(), empty(), empty()


@jit
def search_buffers(wavelengths):  # type: ignore[no-untyped-def]
    """For the search of a block: variance, first order, best and second misfit, order, correction; phases and weights of all
    wavelengths; and one pixel alone."""
    turns = np.empty((wavelengths, BLOCK), np.float32)
    weight = np.empty((wavelengths, BLOCK), np.float32)
    spare, alone = np.empty((4, 1), np.float32), np.empty((2 * wavelengths + 2, 1), np.float32)
    return empty(), empty(), empty(), empty(), empty(), empty(), turns, weight, spare, alone


@jit
def _inside(mask, y, x0, n, keep):  # type: ignore[no-untyped-def]
    """One where the mask lets a pixel in; an empty mask lets all in."""
    if mask.shape[0] == 0:
        for x in range(n):
            keep[x] = _f(1)
        return
    row = mask[y, x0 : x0 + n]
    for x in range(n):
        keep[x] = _f(1) if row[x] != 0 else _f(0)


@jit
def _take_plane(turns, at_start, per_pixel, n):  # type: ignore[no-untyped-def]
    """Remove a wavelength's relative piston and tilt from a block of phases."""
    for x in range(n):
        turns[x] -= at_start + per_pixel * _f(x)


@jit
def totals(anchor, weight, ratio, low, total, start, n):  # type: ignore[no-untyped-def]
    """Variance of the joint height (turns^2 of the anchor) and the lowest order in range."""
    for x in range(n):
        total[x] = _f(0)
    for i in range(weight.shape[0]):
        row, square = weight[i], ratio[i] * ratio[i]
        for x in range(n):
            total[x] += row[x] * square
    for x in range(n):
        total[x] = _f(1) / total[x]
        need = low - anchor[x]
        near = (need + _ROUND) - _ROUND
        start[x] = near + (_f(1) if near < need else _f(0))  # ceil, in vector arithmetic


@jit
def _flag_sum(valid, saturated, low, doubtful):  # type: ignore[no-untyped-def]
    """The flags byte, added up in float32 so that the loop keeps one vector width."""
    bits = _f(0) if valid else _f(_INVALID)
    bits += _f(_SATURATED) if saturated else _f(0)
    bits += _f(_LOW) if low else _f(0)
    return bits + (_f(_AMBIGUOUS) if doubtful else _f(0))


@jit
def height_block(  # type: ignore[no-untyped-def]
    anchor,
    order,
    shift,
    weight,
    total,
    snr,
    clipped,
    weak,
    power,
    keep,
    best,
    second,
    level,
    half_wave,
    wavelengths,
    finest,
    n,
    height,
    sigma,
    modulation,
    flags,
):
    """Form the heights of a block once, from phases and orders, with sigma, modulation and flags."""
    snr_min, margin_min, misfit_max = level[1], level[2], level[3]
    share = _f(1) / _f(wavelengths)
    joint = _f(0) if finest else _f(1)
    for x in range(n):
        saturated = clipped[x] > _f(0)
        measured = (snr[x] >= snr_min) & (snr[x] > _f(0)) & (snr[x] < _LARGE)
        valid = measured & (keep[x] > _f(0)) & (clipped[x] == _f(0))
        variance = _f(1) / weight[x] if finest else total[x]
        value = (anchor[x] + order[x] + joint * shift[x]) * half_wave
        height[x] = value if valid else _f(np.nan)
        sigma[x] = np.sqrt(variance) * half_wave if valid else _f(np.nan)
        modulation[x] = power[x] * share if power[x] < _LARGE else _f(0)
        low = (clipped[x] == _f(0)) & ((weak[x] > _f(0)) | (not measured))
        doubtful = valid & ((second[x] - best[x] < margin_min) | (best[x] > misfit_max))
        flags[x] = np.uint8(_flag_sum(valid, saturated, low, doubtful))


@jit
def _bare_heights(  # type: ignore[no-untyped-def]
    anchor, order, shift, snr, clipped, weak, keep, best, second, level, half_wave, finest, n, height, flags
):
    """`height_block` without sigma and modulation: the same heights and flags, bit for bit."""
    snr_min, margin_min, misfit_max = level[1], level[2], level[3]
    joint = _f(0) if finest else _f(1)
    for x in range(n):
        saturated = clipped[x] > _f(0)
        measured = (snr[x] >= snr_min) & (snr[x] > _f(0)) & (snr[x] < _LARGE)
        valid = measured & (keep[x] > _f(0)) & (clipped[x] == _f(0))
        value = (anchor[x] + order[x] + joint * shift[x]) * half_wave
        height[x] = value if valid else _f(np.nan)
        low = (clipped[x] == _f(0)) & ((weak[x] > _f(0)) | (not measured))
        doubtful = valid & ((second[x] - best[x] < margin_min) | (best[x] > misfit_max))
        flags[x] = np.uint8(_flag_sum(valid, saturated, low, doubtful))


@jit
def _phase_block(turns, weight, snr, clipped, weak, power, keep, level, n, phase, sigma, modulation, flags):  # type: ignore[no-untyped-def]
    """Wrapped phases of a block, with sigma, modulation and flags."""
    snr_min = level[1]
    for x in range(n):
        saturated = clipped[x] > _f(0)
        measured = (snr[x] >= snr_min) & (snr[x] > _f(0)) & (snr[x] < _LARGE)
        valid = measured & (keep[x] > _f(0)) & (clipped[x] == _f(0))
        phase[x] = turns[x] * TURN if valid else _f(np.nan)
        sigma[x] = TURN / np.sqrt(weight[x]) if valid else _f(np.nan)
        modulation[x] = power[x] if power[x] < _LARGE else _f(0)
        low = (clipped[x] == _f(0)) & ((weak[x] > _f(0)) | (not measured))
        flags[x] = np.uint8(_flag_sum(valid, saturated, low, False))


@jit
def _misfit_of(turns, weight, ratio, anchor, total, x):  # type: ignore[no-untyped-def]
    """Chi squared of one order of pixel x, its height free, and the correction of the height that makes it least."""
    misfit, slope = _f(0), _f(0)
    for i in range(len(ratio) - 1):
        residual = turns[i + 1, x] - anchor * ratio[i + 1]
        residual = residual - ((residual + _ROUND) - _ROUND)
        weighted = weight[i + 1, x] * residual
        misfit += weighted * residual
        slope += weighted * ratio[i + 1]
    correction = slope * total
    return misfit - slope * correction, correction


@jit
def search(turns, weight, ratio, start, limit, total, count, n, best, second, order, shift):  # type: ignore[no-untyped-def]
    """Try ``count`` orders from ``start``; keep the best misfit, the runner-up, the order and the correction.

    ``ratio`` is a tuple: its length, the number of wavelengths, is a constant of the compiled code.
    Orders at or above ``limit`` do not count, but the first always does. Two orders a sweep halve the memory traffic.
    """
    for x in range(n):
        best[x], shift[x] = _misfit_of(turns, weight, ratio, turns[0, x] + start[x], total[x], x)
        second[x] = _LARGE
        order[x] = start[x]
    for j in range(1, count, 2):
        for x in range(n):
            k0 = start[x] + _f(j)
            k1 = k0 + _f(1)
            anchor0, anchor1 = turns[0, x] + k0, turns[0, x] + k1
            misfit0, shift0 = _misfit_of(turns, weight, ratio, anchor0, total[x], x)
            misfit1, shift1 = _misfit_of(turns, weight, ratio, anchor1, total[x], x)
            misfit0 = misfit0 if anchor0 < limit else _LARGE
            misfit1 = misfit1 if anchor1 < limit else _LARGE  # the odd one at the end is beyond the limit
            swap = misfit1 < misfit0
            low, high = min(misfit0, misfit1), max(misfit0, misfit1)
            old = best[x]
            better = low < old
            second[x] = min(min(second[x], high), max(low, old))
            order[x] = (k1 if swap else k0) if better else order[x]
            shift[x] = (shift1 if swap else shift0) if better else shift[x]
            best[x] = min(low, old)


@inlined
def search_block(  # type: ignore[no-untyped-def]
    frames, y, x0, n, row, mask, weights, noise, level, ratio, planes, limits, counts, carre, field, extra, work
):
    """Demodulate all wavelengths of a block and search its orders; image row ``row``, buffers ``work`` as made by
    `sum_buffers`, `mark_buffers` and `search_buffers`."""
    used, marks, found = work
    snr, power, clipped, weak, keep = marks
    total, start, best, second, order, shift, turns, weight, spare, alone = found
    snr_min, misfit_max = level[1], level[3]
    wavelengths = len(ratio)
    for x in range(n):
        snr[x] = _f(0)
        power[x] = _f(0)
        clipped[x] = _f(0)
        weak[x] = _f(0)
    for i in range(wavelengths):
        source = int(planes[i, 3])
        demodulate(
            frames, source, y, x0, n, weights, noise, level[0], carre, field, extra, used, turns[i], weight[i], marks
        )
        at_start = planes[i, 0] + planes[i, 1] * (row - planes[i, 4])
        if at_start != 0 or planes[i, 2] != 0:
            _take_plane(turns[i], _f(at_start + planes[i, 2] * (x0 - planes[i, 5])), _f(planes[i, 2]), n)
    totals(turns[0], weight, ratio, limits[0], total, start, n)
    search(turns, weight, ratio, start, limits[1], total, counts[0], n, best, second, order, shift)
    _inside(mask, y, x0, n, keep)
    if counts[1] <= counts[0]:
        return
    for x in range(n):
        # the rare pixel that fits nowhere near: everything, one pixel at a time
        if best[x] > misfit_max and snr[x] >= snr_min and clipped[x] == _f(0) and keep[x] > _f(0):
            for i in range(wavelengths):
                alone[i, 0] = turns[i, x]
                alone[wavelengths + i, 0] = weight[i, x]
            alone[2 * wavelengths, 0] = np.ceil(limits[2] - turns[0, x])
            alone[2 * wavelengths + 1, 0] = total[x]
            search(
                alone[:wavelengths],
                alone[wavelengths : 2 * wavelengths],
                ratio,
                alone[2 * wavelengths],
                limits[3],
                alone[2 * wavelengths + 1],
                counts[1],
                1,
                spare[0],
                spare[1],
                spare[2],
                spare[3],
            )
            best[x], second[x] = spare[0, 0], spare[1, 0]
            order[x], shift[x] = spare[2, 0], spare[3, 0]


@jit
def height_rows(  # type: ignore[no-untyped-def]
    frames,
    row0,
    rows,
    image_row,
    mask,
    weights,
    noise,
    level,
    ratio,
    planes,
    limits,
    counts,
    finest,
    carre,
    field,
    height,
    sigma,
    modulation,
    flags,
):
    """Rows [row0, row0 + rows) of a band: frames to heights. The arrays are described in `cpikan.psi.kernels.cpu`.

    ``field`` is None where steps are uniform: the compiler then drops everything that asks for it.
    """
    width, wavelengths = frames.shape[3], len(ratio)
    marks, found = mark_buffers(), search_buffers(wavelengths)
    snr, power, clipped, weak, keep = marks
    total, _, best, second, order, shift, turns, weight, _, _ = found
    work = (sum_buffers(), marks, found)
    extra = field_buffers(field, frames.shape[1])
    half_wave = limits[4]
    for y in range(row0, row0 + rows):
        field_row(field, extra, image_row + y)
        for x0 in range(0, width, BLOCK):
            n = min(BLOCK, width - x0)
            search_block(
                frames,
                y,
                x0,
                n,
                image_row + y,
                mask,
                weights,
                noise,
                level,
                ratio,
                planes,
                limits,
                counts,
                carre,
                field,
                extra,
                work,
            )
            if sigma.shape[0] == 0:  # only heights are wanted
                _bare_heights(
                    turns[0],
                    order,
                    shift,
                    snr,
                    clipped,
                    weak,
                    keep,
                    best,
                    second,
                    level,
                    half_wave,
                    finest,
                    n,
                    height[y, x0 : x0 + n],
                    flags[y, x0 : x0 + n],
                )
                continue
            height_block(
                turns[0],
                order,
                shift,
                weight[0],
                total,
                snr,
                clipped,
                weak,
                power,
                keep,
                best,
                second,
                level,
                half_wave,
                wavelengths,
                finest,
                n,
                height[y, x0 : x0 + n],
                sigma[y, x0 : x0 + n],
                modulation[y, x0 : x0 + n],
                flags[y, x0 : x0 + n],
            )


@jit
def phase_rows(  # type: ignore[no-untyped-def]
    frames, row0, rows, image_row, mask, weights, noise, level, carre, field, phase, sigma, modulation, flags
):
    """Rows [row0, row0 + rows) of a band of one wavelength: frames to wrapped phases."""
    width = frames.shape[3]
    used, marks = sum_buffers(), mark_buffers()
    snr, power, clipped, weak, keep = marks
    turns, weight = empty(), empty()
    extra = field_buffers(field, frames.shape[1])
    for y in range(row0, row0 + rows):
        field_row(field, extra, image_row + y)
        for x0 in range(0, width, BLOCK):
            n = min(BLOCK, width - x0)
            for x in range(n):
                snr[x] = _f(0)
                power[x] = _f(0)
                clipped[x] = _f(0)
                weak[x] = _f(0)
            demodulate(frames, 0, y, x0, n, weights, noise, level[0], carre, field, extra, used, turns, weight, marks)
            _inside(mask, y, x0, n, keep)
            _phase_block(
                turns,
                weight,
                snr,
                clipped,
                weak,
                power,
                keep,
                level,
                n,
                phase[y, x0 : x0 + n],
                sigma[y, x0 : x0 + n],
                modulation[y, x0 : x0 + n],
                flags[y, x0 : x0 + n],
            )
