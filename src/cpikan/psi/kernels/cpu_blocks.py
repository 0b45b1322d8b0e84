"""Compiled loops of the CPU's pixel pass: a row is worked through in blocks that stay in the second-level cache.

Demodulate every wavelength, search the order, form the height: all loops over pixels are branch-free, so that LLVM turns
them into vector code. No result depends on how rows are grouped into bands or shared among threads.
"""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.arguments import AT_BLACK, Block, Found, Quality, Sums, Waves
from cpikan.psi.kernels.cpu_field import demodulate, fill_row_weights, node_buffers
from cpikan.psi.kernels.cpu_phasors import BLOCK, TURN, empty, jit
from cpikan.psi.kernels.model import LOW_SIGMA_RAD
from cpikan.psi.model.flags import Flag

_f = np.float32
_ROUND = _f(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds a float32 to the nearest integer
_INVALID, _SATURATED = int(Flag.INVALID), int(Flag.SATURATED)
_LOW, _AMBIGUOUS = int(Flag.LOW_MODULATION), int(Flag.AMBIGUOUS)
_LARGE = _f(1e30)
_LOW_VARIANCE = _f((LOW_SIGMA_RAD / (2 * np.pi)) ** 2)  # cycles^2


@jit
def _single():  # type: ignore[no-untyped-def]
    return np.empty(1, np.float32)


@jit
def _waves(wavelengths, n):  # type: ignore[no-untyped-def]
    return Waves(np.empty((wavelengths, n), np.float32), np.empty((wavelengths, n), np.float32))


@jit
def _wave_buffers(wavelengths, shown):  # type: ignore[no-untyped-def]
    """Make room for a block: sums of a wavelength, quality, and phases and weights of all wavelengths.

    Modulation has room where it is ``shown``.
    """
    modulation = empty() if shown else np.empty(0, np.float32)
    return (
        Sums(empty(), empty(), empty(), empty(), empty()),
        Quality(empty(), modulation, empty(), empty(), np.ones(BLOCK, np.float32)),
        _waves(wavelengths, BLOCK),
    )


@jit
def _search_buffers(wavelengths):  # type: ignore[no-untyped-def]
    """Make room for the search of a block, and for the phases and the search of a single pixel."""
    return (
        Found(empty(), empty(), empty(), empty(), empty(), empty()),
        _waves(wavelengths, 1),
        Found(_single(), _single(), _single(), _single(), _single(), _single()),
    )


@jit
def _fill(values, number, n):  # type: ignore[no-untyped-def]
    for x in range(n):
        values[x] = number


@jit
def _start_quality(mask, block, quality):  # type: ignore[no-untyped-def]
    """Clear the sums of a block, and note where the mask lets a pixel in, unless it is empty."""
    snr, modulation, saturated, low_modulation, in_mask = quality
    n = block.n
    _fill(snr, _f(0), n)
    _fill(modulation, _f(0), min(n, modulation.shape[0]))
    _fill(saturated, _f(0), n)
    _fill(low_modulation, _f(0), n)
    if mask.shape[0] > 0:
        row = mask[block.y, block.x0 : block.x0 + n]
        for x in range(n):
            in_mask[x] = _f(1) if row[x] != 0 else _f(0)


@jit
def _remove_plane(plane, block, phase):  # type: ignore[no-untyped-def]
    """Remove a wavelength's relative piston and tilt from a block of phases."""
    at_start = plane.piston + plane.tilt_y * (block.image_row - plane.centre_y)
    if at_start != 0 or plane.tilt_x != 0:
        start = _f(at_start + plane.tilt_x * (block.x0 - plane.centre_x))
        per_pixel = _f(plane.tilt_x)
        for x in range(block.n):
            phase[x] -= start + per_pixel * _f(x)


@jit
def _remove_bow(bow, plane, block, phase):  # type: ignore[no-untyped-def]
    """Remove a wavelength's smooth errors from a block of phases; None compiles to nothing."""
    if bow is not None:
        y = block.image_row - plane.centre_y
        c0, c1, c2, c3, c4 = bow[20], bow[21], bow[22], bow[23], bow[24]
        for i in range(3, -1, -1):
            k = 5 * i
            c0 = c0 * y + bow[k]
            c1 = c1 * y + bow[k + 1]
            c2 = c2 * y + bow[k + 2]
            c3 = c3 * y + bow[k + 3]
            c4 = c4 * y + bow[k + 4]
        for n in range(block.n):
            x = block.x0 + n - plane.centre_x
            phase[n] -= _f((((c4 * x + c3) * x + c2) * x + c1) * x + c0)


@jit
def start_search(waves, ratio, low, found, n):  # type: ignore[no-untyped-def]
    """Fill the variance of the joint height (cycles^2 of the anchor) and the lowest order in range."""
    anchor, weight, total, start = waves.phase_cycles[0], waves.weight, found.variance, found.start
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
def order_misfit(phase, weight, ratio, anchor, variance, x):  # type: ignore[no-untyped-def]
    """Work out chi squared of one order of pixel x, its height free, and the correction of the height that makes it least."""
    misfit, slope = _f(0), _f(0)
    for i in range(len(ratio) - 1):
        residual = phase[i + 1, x] - anchor * ratio[i + 1]
        residual = residual - ((residual + _ROUND) - _ROUND)
        weighted = weight[i + 1, x] * residual
        misfit += weighted * residual
        slope += weighted * ratio[i + 1]
    correction = slope * variance
    return misfit - slope * correction, correction


@jit
def search(waves, ratio, limits, found, n):  # type: ignore[no-untyped-def]
    """Try the orders from ``found.start`` on; keep the best misfit, the runner-up, the order and the correction.

    ``ratio`` is a tuple: its length, the number of wavelengths, is a constant of the compiled code. Orders at or above the
    end of ``limits`` do not count, but the first always does. Two orders a sweep halve the memory traffic.
    """
    phase, weight = waves
    total, start, best, second, order, shift = found
    end = limits.end
    for x in range(n):
        best[x], shift[x] = order_misfit(phase, weight, ratio, phase[0, x] + start[x], total[x], x)
        second[x] = _LARGE
        order[x] = start[x]
    for j in range(1, limits.orders, 2):
        for x in range(n):
            k0 = start[x] + _f(j)
            k1 = k0 + _f(1)
            anchor0, anchor1 = phase[0, x] + k0, phase[0, x] + k1
            misfit0, shift0 = order_misfit(phase, weight, ratio, anchor0, total[x], x)
            misfit1, shift1 = order_misfit(phase, weight, ratio, anchor1, total[x], x)
            misfit0 = misfit0 if anchor0 < end else _LARGE
            misfit1 = misfit1 if anchor1 < end else _LARGE  # the odd one at the end is beyond the limit
            swap = misfit1 < misfit0
            low, high = min(misfit0, misfit1), max(misfit0, misfit1)
            old = best[x]
            better = low < old
            second[x] = min(min(second[x], high), max(low, old))
            order[x] = (k1 if swap else k0) if better else order[x]
            shift[x] = (shift1 if swap else shift0) if better else shift[x]
            best[x] = min(low, old)


@jit
def _search_far(model, n, snr_min, quality, waves, found, lone_waves, lone):  # type: ignore[no-untyped-def]
    """Search all orders of the rare pixel that fits nowhere near, one pixel at a time."""
    snr, _, saturated, _, in_mask = quality
    for x in range(n):
        if found.best[x] > model.misfit_max and snr[x] >= snr_min and saturated[x] == _f(0) and in_mask[x] > _f(0):
            for i in range(len(model.ratio)):
                lone_waves.phase_cycles[i, 0] = waves.phase_cycles[i, x]
                lone_waves.weight[i, 0] = waves.weight[i, x]
            lone.start[0] = np.ceil(model.whole.low - waves.phase_cycles[0, x])
            lone.variance[0] = found.variance[x]
            search(lone_waves, model.ratio, model.whole, lone, np.intp(1))  # no literal: see `phase_rows`
            found.best[x], found.second[x] = lone.best[0], lone.second[0]
            found.order[x], found.shift[x] = lone.order[0], lone.shift[0]


@jit
def _is_measured(snr, snr_min):  # type: ignore[no-untyped-def]
    return (snr >= snr_min) & (snr > _f(0)) & (snr < _LARGE)


@jit
def _is_valid(snr, snr_min, saturated, in_mask):  # type: ignore[no-untyped-def]
    return _is_measured(snr, snr_min) & (in_mask > _f(0)) & (saturated == _f(0))


@jit
def _flags(valid, measured, saturated, low_modulation, doubtful):  # type: ignore[no-untyped-def]
    """Add up the flags byte in float32, so that the loop keeps one vector width.

    What is black and shows no fringes is dark, not clipped.
    """
    lost = (saturated > _f(AT_BLACK)) | ((saturated > _f(0)) & measured)
    low = (not lost) & ((low_modulation > _f(0)) | (not measured))
    bits = _f(0) if valid else _f(_INVALID)
    bits += _f(_SATURATED) if lost else _f(0)
    bits += _f(_LOW) if low else _f(0)
    return np.uint8(bits + (_f(_AMBIGUOUS) if valid & doubtful else _f(0)))


@jit
def _is_loud(variance):  # type: ignore[no-untyped-def]
    """Compare a phase's variance (cycles^2) with what counts as low modulation; false for NaN."""
    return variance > _LOW_VARIANCE


@jit
def _form_heights(waves, found, quality, snr_min, model, height, flags):  # type: ignore[no-untyped-def]
    """Form the heights of a block once, from phases and orders, with their flags."""
    anchor, order, shift, best, second = waves.phase_cycles[0], found.order, found.shift, found.best, found.second
    snr, _, saturated, low_modulation, in_mask = quality
    margin_min, misfit_max, half_wave = model.margin_min, model.misfit_max, model.half_wave_nm
    joint, weight = _f(0) if model.finest else _f(1), waves.weight[0]
    for x in range(height.shape[0]):
        measured = _is_measured(snr[x], snr_min)
        valid = _is_valid(snr[x], snr_min, saturated[x], in_mask[x])
        value = (anchor[x] + order[x] + joint * shift[x]) * half_wave
        height[x] = value if valid else _f(np.nan)
        doubtful = (second[x] - best[x] < margin_min) | (best[x] > misfit_max)
        variance = _f(1) / weight[x] if model.finest else found.variance[x]
        low = _f(1) if _is_loud(variance) else low_modulation[x]
        flags[x] = _flags(valid, measured, saturated[x], low, doubtful)


@jit
def _form_sigma(weight, variance, quality, snr_min, model, sigma, modulation):  # type: ignore[no-untyped-def]
    """Fill the standard uncertainty of the heights of a block, and the mean modulation."""
    snr, modulation_sum, saturated, _, in_mask = quality
    half_wave, finest = model.half_wave_nm, model.finest
    share = _f(1) / _f(len(model.ratio))
    for x in range(sigma.shape[0]):
        valid = _is_valid(snr[x], snr_min, saturated[x], in_mask[x])
        variance_of = _f(1) / weight[x] if finest else variance[x]
        sigma[x] = np.sqrt(variance_of) * half_wave if valid else _f(np.nan)
        modulation[x] = modulation_sum[x] * share if modulation_sum[x] < _LARGE else _f(0)


@jit
def _form_phases(waves, quality, snr_min, phase, sigma, modulation, flags):  # type: ignore[no-untyped-def]
    """Fill wrapped phases of a block in rad, with sigma, modulation and flags."""
    cycles, weight = waves.phase_cycles[0], waves.weight[0]
    snr, modulation_sum, saturated, low_modulation, in_mask = quality
    for x in range(phase.shape[0]):
        measured = _is_measured(snr[x], snr_min)
        valid = _is_valid(snr[x], snr_min, saturated[x], in_mask[x])
        phase[x] = cycles[x] * TURN if valid else _f(np.nan)
        sigma[x] = TURN / np.sqrt(weight[x]) if valid else _f(np.nan)
        modulation[x] = modulation_sum[x] if modulation_sum[x] < _LARGE else _f(0)
        low = _f(1) if _is_loud(_f(1) / weight[x]) else low_modulation[x]
        flags[x] = _flags(valid, measured, saturated[x], low, False)


@jit
def _keep(waves, found, block, kept):  # type: ignore[no-untyped-def]
    """Keep what heights are formed from: phases, weights and the pixels' own orders."""
    y, x0 = block.y, block.x0
    for i in range(waves.weight.shape[0]):
        for x in range(block.n):
            kept.phase_cycles[i, y, x0 + x] = waves.phase_cycles[i, x]
            kept.weight[i, y, x0 + x] = waves.weight[i, x]
    for x in range(block.n):
        kept.order[y, x0 + x] = found.order[x]
        kept.best[y, x0 + x] = found.best[x]
        kept.second[y, x0 + x] = found.second[x]


@jit
def height_rows(frames, span, mask, demodulator, model, field, out, kept):  # type: ignore[no-untyped-def]
    """Turn some rows of a band of frames (L, K, rows, W) into heights; arguments as in `cpikan.psi.kernels.arguments`.

    ``out`` are `HeightRows`, sigma and modulation without rows where only heights are wanted; ``kept`` are `DemodulatedRows` to
    fill too, without rows where they are not wanted; ``field`` is None where steps are uniform: the compiler drops everything
    that asks for it.
    """
    width, wavelengths = frames.shape[3], len(model.ratio)
    # unpacked once: each unpacking in the loops would count the users of the arrays anew
    sums, quality, waves = _wave_buffers(wavelengths, out.sigma_nm.shape[0] > 0)
    found, lone_waves, lone = _search_buffers(wavelengths)
    nodes, snr_min = node_buffers(field, frames.shape[1]), demodulator.snr_min
    for y in range(span.first, span.last):
        fill_row_weights(field, span.image_row + y, nodes.lines)
        for x0 in range(0, width, BLOCK):
            block = Block(y, span.image_row + y, x0, min(BLOCK, width - x0))
            part = slice(x0, x0 + block.n)
            _start_quality(mask, block, quality)
            for i in range(wavelengths):
                phase, weight = waves.phase_cycles[i], waves.weight[i]
                plane = model.planes[i]
                demodulate(frames, plane.source, block, demodulator, field, nodes, sums, phase, weight, quality)
                _remove_plane(plane, block, phase)
                _remove_bow(plane.bow, plane, block, phase)
            start_search(waves, model.ratio, model.near.low, found, block.n)
            search(waves, model.ratio, model.near, found, block.n)
            if model.whole.orders > model.near.orders:
                _search_far(model, block.n, snr_min, quality, waves, found, lone_waves, lone)
            if kept.order.shape[0] > 0:
                _keep(waves, found, block, kept)
            _form_heights(waves, found, quality, snr_min, model, out.height_nm[y, part], out.flags[y, part])
            if out.sigma_nm.shape[0] > 0:
                sigma, modulation = out.sigma_nm[y, part], out.modulation[y, part]
                _form_sigma(waves.weight[0], found.variance, quality, snr_min, model, sigma, modulation)


@jit
def phase_rows(frames, span, mask, demodulator, field, out):  # type: ignore[no-untyped-def]
    """Turn some rows of a band of frames of one wavelength into wrapped phases, `PhaseRows`; see `height_rows`."""
    sums, quality, waves = _wave_buffers(1, True)
    nodes, width, snr_min = node_buffers(field, frames.shape[1]), frames.shape[3], demodulator.snr_min
    phase, weight = waves.phase_cycles[0], waves.weight[0]
    source = np.intp(0)  # no literal: for one everything below would be compiled once more
    for y in range(span.first, span.last):
        fill_row_weights(field, span.image_row + y, nodes.lines)
        for x0 in range(0, width, BLOCK):
            block = Block(y, span.image_row + y, x0, min(BLOCK, width - x0))
            part = slice(x0, x0 + block.n)
            _start_quality(mask, block, quality)
            demodulate(frames, source, block, demodulator, field, nodes, sums, phase, weight, quality)
            _form_phases(
                waves,
                quality,
                snr_min,
                out.phase_rad[y, part],
                out.sigma_rad[y, part],
                out.modulation[y, part],
                out.flags[y, part],
            )
