"""Compiled loops of the CPU's pixel pass: a row is worked through in blocks that stay in the first-level cache.

Demodulate every wavelength, search the order, form the height: all loops over pixels are branch-free, so that LLVM turns
them into vector code. No result depends on how rows are grouped into bands or shared among threads.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from cpikan.psi.flags import Flag
from cpikan.psi.kernels.model import LOW_SIGMA_RAD

_BLOCK = 2048  # pixels: long runs for the prefetcher, and all buffers of a block in the second-level cache
_f = np.float32
_ROUND = _f(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds a float32 to the nearest integer
_TURN = _f(2 * np.pi)
_INVALID, _SATURATED = int(Flag.INVALID), int(Flag.SATURATED)
_LOW, _AMBIGUOUS = int(Flag.LOW_MODULATION), int(Flag.AMBIGUOUS)
_LOW_VARIANCE = _f((LOW_SIGMA_RAD / (2 * np.pi)) ** 2)  # turns^2
_LARGE = _f(1e30)

# "contract" allows fused multiply-add; nothing that reorders sums or breaks the rounding trick
_jit: Any = functools.partial(
    numba.njit, nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"}, boundscheck=False
)


@_jit
def _empty():  # type: ignore[no-untyped-def]
    """A block of its own: slices of one allocation fail the overlap checks of vector loops and run ten times slower."""
    return np.empty(_BLOCK, np.float32)


@_jit
def _buffers():  # type: ignore[no-untyped-def]
    return _empty(), _empty(), _empty(), _empty(), _empty(), _empty(), _empty(), _empty(), _empty()


@_jit
def _search_buffers():  # type: ignore[no-untyped-def]
    return _empty(), _empty(), _empty(), _empty(), _empty(), _empty()


@_jit
def _phasor_sums(frames, wavelength, y, x0, n, weights, u, v, a, top):  # type: ignore[no-untyped-def]
    """Weighted sums of K frames over a block of one row: u, v, mean and the largest sample."""
    for x in range(n):
        u[x] = _f(0)
        v[x] = _f(0)
        a[x] = _f(0)
        top[x] = _f(0)
    count = frames.shape[1]
    for k in range(0, count - 3, 4):  # four frames per sweep: a quarter of the traffic of the sums
        c0, s0, m0 = weights[0, wavelength, k], weights[1, wavelength, k], weights[2, wavelength, k]
        c1, s1, m1 = weights[0, wavelength, k + 1], weights[1, wavelength, k + 1], weights[2, wavelength, k + 1]
        c2, s2, m2 = weights[0, wavelength, k + 2], weights[1, wavelength, k + 2], weights[2, wavelength, k + 2]
        c3, s3, m3 = weights[0, wavelength, k + 3], weights[1, wavelength, k + 3], weights[2, wavelength, k + 3]
        # slices: their indices are known not to be negative, so loads stay vectors
        row0, row1 = frames[wavelength, k, y, x0 : x0 + n], frames[wavelength, k + 1, y, x0 : x0 + n]
        row2, row3 = frames[wavelength, k + 2, y, x0 : x0 + n], frames[wavelength, k + 3, y, x0 : x0 + n]
        for x in range(n):
            i0, i1, i2, i3 = _f(row0[x]), _f(row1[x]), _f(row2[x]), _f(row3[x])
            u[x] += c0 * i0 + c1 * i1 + (c2 * i2 + c3 * i3)
            v[x] += s0 * i0 + s1 * i1 + (s2 * i2 + s3 * i3)
            a[x] += m0 * i0 + m1 * i1 + (m2 * i2 + m3 * i3)
            top[x] = max(top[x], max(max(i0, i1), max(i2, i3)))
    for k in range(count - count % 4, count):
        c, s, m = weights[0, wavelength, k], weights[1, wavelength, k], weights[2, wavelength, k]
        row = frames[wavelength, k, y, x0 : x0 + n]
        for x in range(n):
            sample = _f(row[x])
            u[x] += c * sample
            v[x] += s * sample
            a[x] += m * sample
            top[x] = max(top[x], sample)


@_jit
def _carre_sums(frames, wavelength, y, x0, n, weights, u, v, a, top):  # type: ignore[no-untyped-def]
    """Carre's square root for four frames; see `cpikan.psi.schemes`."""
    real, imag = weights[0, wavelength, 0], weights[0, wavelength, 1]
    scale, sign = weights[0, wavelength, 2], weights[0, wavelength, 3]
    size = abs(scale) * sign
    row0, row1 = frames[wavelength, 0, y, x0 : x0 + n], frames[wavelength, 1, y, x0 : x0 + n]
    row2, row3 = frames[wavelength, 2, y, x0 : x0 + n], frames[wavelength, 3, y, x0 : x0 + n]
    for x in range(n):
        i0, i1, i2, i3 = _f(row0[x]), _f(row1[x]), _f(row2[x]), _f(row3[x])
        outer, inner = i0 - i3, i1 - i2
        even = (i1 + i2 - i0 - i3) * scale
        odd = np.sqrt(abs((_f(3) * inner - outer) * (inner + outer))) * size
        odd = -odd if inner < _f(0) else odd
        odd = _f(0) if inner == _f(0) else odd
        u[x] = even * real - odd * imag
        v[x] = even * imag + odd * real
        a[x] = (i0 + i1 + i2 + i3) * _f(0.25)
        top[x] = max(max(i0, i1), max(i2, i3))


@_jit
def _sums(carre, frames, wavelength, y, x0, n, weights, u, v, a, top):  # type: ignore[no-untyped-def]
    """The sums of the scheme in use."""
    if carre:
        _carre_sums(frames, wavelength, y, x0, n, weights, u, v, a, top)
    else:
        _phasor_sums(frames, wavelength, y, x0, n, weights, u, v, a, top)


@_jit
def _phase_turns(u, v, out, n):  # type: ignore[no-untyped-def]
    """atan2(v, u) in turns, in [-0.5, 0.5]; minimax polynomial of degree 15 on [0, 1]: 6e-9 turns, in float32 3e-8."""
    for x in range(n):
        across, along = abs(v[x]), abs(u[x])
        big, small = max(across, along), min(across, along)
        t = small / max(big, _f(1e-30))
        s = t * t
        p = _f(-0.0006453042)
        p = p * s + _f(0.0034795971)
        p = p * s + _f(-0.0088987222)
        p = p * s + _f(0.0153460330)
        p = p * s + _f(-0.0221362712)
        p = p * s + _f(0.0317459452)
        p = p * s + _f(-0.0530461210)
        p = p * s + _f(0.1591548373)
        r = p * t
        r = _f(0.25) - r if across > along else r
        r = _f(0.5) - r if u[x] < _f(0) else r
        out[x] = -r if v[x] < _f(0) else r


@_jit
def _quality(u, v, a, top, n, wavelength, noise, saturation, weight, snr, modulation, clipped, weak):  # type: ignore[no-untyped-def]
    """From the sums of one wavelength: weight 1/variance (turns^-2), signal-to-noise, modulation and flags of the block.

    ``noise`` (L, 6): read, gain, var u, cov u v, var v, phase floor (turns^2).
    """
    read, gain = noise[wavelength, 0], noise[wavelength, 1]
    var_u, cov, var_v = noise[wavelength, 2], noise[wavelength, 3], noise[wavelength, 4]
    floor = noise[wavelength, 5]
    per_turn = _f(1) / (_TURN * _TURN)
    for x in range(n):
        sample_variance = read + gain * max(a[x], _f(0))
        power = u[x] * u[x] + v[x] * v[x]
        spread = sample_variance * (var_u * v[x] * v[x] - _f(2) * cov * u[x] * v[x] + var_v * u[x] * u[x])
        modulation_variance = sample_variance * (var_u + var_v) * _f(0.5)
        true_power = max(power - _f(2) * modulation_variance, power * _f(0.25))
        scale = power * true_power
        variance = spread * per_turn / max(scale, _f(1e-30)) + floor
        weight[x] = _f(1) / max(variance, _f(1e-30))
        snr[x] += power / max(modulation_variance, _f(1e-30))
        modulation[x] += np.sqrt(power)
        clipped[x] = max(clipped[x], _f(1) if top[x] >= saturation else _f(0))
        weak[x] = weak[x] if variance <= _LOW_VARIANCE else _f(1)


@_jit
def _inside(mask, y, x0, n, keep):  # type: ignore[no-untyped-def]
    """One where the mask lets a pixel in; an empty mask lets all in."""
    if mask.shape[0] == 0:
        for x in range(n):
            keep[x] = _f(1)
        return
    row = mask[y, x0 : x0 + n]
    for x in range(n):
        keep[x] = _f(1) if row[x] != 0 else _f(0)


@_jit
def _take_plane(turns, at_start, per_pixel, n):  # type: ignore[no-untyped-def]
    """Remove a wavelength's relative piston and tilt from a block of phases."""
    for x in range(n):
        turns[x] -= at_start + per_pixel * _f(x)


@_jit
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


@_jit
def _flag_sum(valid, saturated, low, doubtful):  # type: ignore[no-untyped-def]
    """The flags byte, added up in float32 so that the loop keeps one vector width."""
    bits = _f(0) if valid else _f(_INVALID)
    bits += _f(_SATURATED) if saturated else _f(0)
    bits += _f(_LOW) if low else _f(0)
    return bits + (_f(_AMBIGUOUS) if doubtful else _f(0))


@_jit
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


@_jit
def _phase_block(turns, weight, snr, clipped, weak, power, keep, level, n, phase, sigma, modulation, flags):  # type: ignore[no-untyped-def]
    """Wrapped phases of a block, with sigma, modulation and flags."""
    snr_min = level[1]
    for x in range(n):
        saturated = clipped[x] > _f(0)
        measured = (snr[x] >= snr_min) & (snr[x] > _f(0)) & (snr[x] < _LARGE)
        valid = measured & (keep[x] > _f(0)) & (clipped[x] == _f(0))
        phase[x] = turns[x] * _TURN if valid else _f(np.nan)
        sigma[x] = _TURN / np.sqrt(weight[x]) if valid else _f(np.nan)
        modulation[x] = power[x] if power[x] < _LARGE else _f(0)
        low = (clipped[x] == _f(0)) & ((weak[x] > _f(0)) | (not measured))
        flags[x] = np.uint8(_flag_sum(valid, saturated, low, False))


@_jit
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


@_jit
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


@_jit
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
    height,
    sigma,
    modulation,
    flags,
):
    """Rows [row0, row0 + rows) of a band: frames to heights. The arrays are described in `cpikan.psi.kernels.cpu`."""
    width = frames.shape[3]
    u, v, a, top, snr, power, clipped, weak, keep = _buffers()
    total, start, best, second, order, shift = _search_buffers()
    wavelengths = len(ratio)
    turns = np.empty((wavelengths, _BLOCK), np.float32)
    weight = np.empty((wavelengths, _BLOCK), np.float32)
    spare = np.empty((4, 1), np.float32)
    alone = np.empty((2 * wavelengths + 2, 1), np.float32)
    saturation, snr_min, misfit_max = level[0], level[1], level[3]
    half_wave = limits[4]
    wide = counts[1] > counts[0]
    for y in range(row0, row0 + rows):
        for x0 in range(0, width, _BLOCK):
            n = min(_BLOCK, width - x0)
            for x in range(n):
                snr[x] = _f(0)
                power[x] = _f(0)
                clipped[x] = _f(0)
                weak[x] = _f(0)
            for i in range(wavelengths):
                source = int(planes[i, 3])
                _sums(carre, frames, source, y, x0, n, weights, u, v, a, top)
                _phase_turns(u, v, turns[i], n)
                _quality(u, v, a, top, n, source, noise, saturation, weight[i], snr, power, clipped, weak)
                at_start = planes[i, 0] + planes[i, 1] * (image_row + y - planes[i, 4])
                _take_plane(turns[i], _f(at_start + planes[i, 2] * (x0 - planes[i, 5])), _f(planes[i, 2]), n)
            totals(turns[0], weight, ratio, limits[0], total, start, n)
            search(turns, weight, ratio, start, limits[1], total, counts[0], n, best, second, order, shift)
            if wide:
                for x in range(n):
                    # the rare pixel that fits nowhere near: everything, one pixel at a time
                    if best[x] > misfit_max and snr[x] >= snr_min and clipped[x] == _f(0):
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
            _inside(mask, y, x0, n, keep)
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


@_jit
def phase_rows(frames, row0, rows, mask, weights, noise, level, carre, phase, sigma, modulation, flags):  # type: ignore[no-untyped-def]
    """Rows [row0, row0 + rows) of a band of one wavelength: frames to wrapped phases."""
    width = frames.shape[3]
    u, v, a, top, snr, power, clipped, weak, keep = _buffers()
    turns, weight, _, _, _, _ = _search_buffers()
    saturation = level[0]
    for y in range(row0, row0 + rows):
        for x0 in range(0, width, _BLOCK):
            n = min(_BLOCK, width - x0)
            for x in range(n):
                snr[x] = _f(0)
                power[x] = _f(0)
                clipped[x] = _f(0)
                weak[x] = _f(0)
            _sums(carre, frames, 0, y, x0, n, weights, u, v, a, top)
            _phase_turns(u, v, turns, n)
            _quality(u, v, a, top, n, 0, noise, saturation, weight, snr, power, clipped, weak)
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
