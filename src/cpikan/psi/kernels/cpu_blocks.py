"""Compiled loops of the CPU's pixel pass: a row is worked through in blocks that stay in the second-level cache.

Demodulate every wavelength, search the order, form the height: all loops over pixels are branch-free, so that LLVM turns
them into vector code. No result depends on how rows are grouped into bands or shared among threads.
"""

from __future__ import annotations

import numpy as np

from cpikan.psi.flags import Flag
from cpikan.psi.kernels.cpu_phasors import (
    BLOCK,
    TURN,
    empty,
    field_quality,
    field_sums,
    jit,
    light,
    line_weights,
    phase_turns,
    quality,
    shares,
    sums,
    unlock,
)
from cpikan.psi.kernels.weight_field import EXTRAS

_f = np.float32
_ROUND = _f(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds a float32 to the nearest integer
_INVALID, _SATURATED = int(Flag.INVALID), int(Flag.SATURATED)
_LOW, _AMBIGUOUS = int(Flag.LOW_MODULATION), int(Flag.AMBIGUOUS)
_LARGE = _f(1e30)


@jit
def _buffers():  # type: ignore[no-untyped-def]
    return empty(), empty(), empty(), empty(), empty(), empty(), empty(), empty(), empty()


@jit
def _search_buffers():  # type: ignore[no-untyped-def]
    return empty(), empty(), empty(), empty(), empty(), empty()


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
def _height_block(  # type: ignore[no-untyped-def]
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
    """`_height_block` without sigma and modulation: the same heights and flags, bit for bit."""
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
    width = frames.shape[3]
    u, v, a, top, snr, power, clipped, weak, keep = _buffers()
    total, start, best, second, order, shift = _search_buffers()
    wavelengths = len(ratio)
    turns = np.empty((wavelengths, BLOCK), np.float32)
    weight = np.empty((wavelengths, BLOCK), np.float32)
    spare = np.empty((4, 1), np.float32)
    alone = np.empty((2 * wavelengths + 2, 1), np.float32)
    saturation, snr_min, misfit_max = level[0], level[1], level[3]
    half_wave = limits[4]
    wide = counts[1] > counts[0]
    if field is not None:
        nodes, first_node, spacing_y, spacing, responses = field
        lines = np.empty(nodes.shape[1:], np.float32)
        size = 3 * frames.shape[1] + EXTRAS
        ramp = np.arange(BLOCK).astype(np.float32)
        block = np.empty((frames.shape[1], BLOCK), np.float32)
    for y in range(row0, row0 + rows):
        if field is not None:
            row = image_row + y
            line_weights(nodes, 2 * (row // spacing_y - first_node), shares(row, spacing_y), lines)
        for x0 in range(0, width, BLOCK):
            n = min(BLOCK, width - x0)
            for x in range(n):
                snr[x] = _f(0)
                power[x] = _f(0)
                clipped[x] = _f(0)
                weak[x] = _f(0)
            for i in range(wavelengths):
                source = int(planes[i, 3])
                if field is None:
                    sums(carre, frames, source, y, x0, n, weights, u, v, a, top)
                    phase_turns(u, v, turns[i], n)
                    quality(u, v, a, top, n, source, noise, saturation, weight[i], snr, power, clipped, weak)
                else:
                    line = lines[source]
                    light(frames, source, y, x0, n, responses[source], block)
                    field_sums(block, x0, n, line, spacing, ramp, u, v, a, top)
                    if responses[source, 14] != 0:
                        unlock(x0, n, line, size, spacing, ramp, u, v)
                    phase_turns(u, v, turns[i], n)
                    field_quality(
                        u,
                        v,
                        a,
                        top,
                        x0,
                        n,
                        line,
                        size,
                        spacing,
                        ramp,
                        source,
                        noise,
                        responses[source, 1],
                        weight[i],
                        snr,
                        power,
                        clipped,
                        weak,
                    )
                at_start = planes[i, 0] + planes[i, 1] * (image_row + y - planes[i, 4])
                if at_start != 0 or planes[i, 2] != 0:
                    _take_plane(turns[i], _f(at_start + planes[i, 2] * (x0 - planes[i, 5])), _f(planes[i, 2]), n)
            totals(turns[0], weight, ratio, limits[0], total, start, n)
            search(turns, weight, ratio, start, limits[1], total, counts[0], n, best, second, order, shift)
            _inside(mask, y, x0, n, keep)
            if wide:
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
            _height_block(
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
    u, v, a, top, snr, power, clipped, weak, keep = _buffers()
    turns, weight, _, _, _, _ = _search_buffers()
    saturation = level[0]
    if field is not None:
        nodes, first_node, spacing_y, spacing, responses = field
        lines = np.empty(nodes.shape[1:], np.float32)
        size = 3 * frames.shape[1] + EXTRAS
        ramp = np.arange(BLOCK).astype(np.float32)
        block = np.empty((frames.shape[1], BLOCK), np.float32)
    for y in range(row0, row0 + rows):
        if field is not None:
            row = image_row + y
            line_weights(nodes, 2 * (row // spacing_y - first_node), shares(row, spacing_y), lines)
        for x0 in range(0, width, BLOCK):
            n = min(BLOCK, width - x0)
            for x in range(n):
                snr[x] = _f(0)
                power[x] = _f(0)
                clipped[x] = _f(0)
                weak[x] = _f(0)
            if field is None:
                sums(carre, frames, 0, y, x0, n, weights, u, v, a, top)
                phase_turns(u, v, turns, n)
                quality(u, v, a, top, n, 0, noise, saturation, weight, snr, power, clipped, weak)
            else:
                line = lines[0]
                light(frames, 0, y, x0, n, responses[0], block)
                field_sums(block, x0, n, line, spacing, ramp, u, v, a, top)
                if responses[0, 14] != 0:
                    unlock(x0, n, line, size, spacing, ramp, u, v)
                phase_turns(u, v, turns, n)
                field_quality(
                    u,
                    v,
                    a,
                    top,
                    x0,
                    n,
                    line,
                    size,
                    spacing,
                    ramp,
                    0,
                    noise,
                    responses[0, 1],
                    weight,
                    snr,
                    power,
                    clipped,
                    weak,
                )
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
