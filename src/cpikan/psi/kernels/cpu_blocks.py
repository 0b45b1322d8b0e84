"""Compiled loops of the CPU's pixel pass: a row is worked through in blocks that stay in the second-level cache.

Demodulate every wavelength, search the order, form the height: all loops over pixels are branch-free, so that LLVM turns
them into vector code. No result depends on how rows are grouped into bands or shared among threads.
"""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.arguments import AT_BLACK, Block, Quality, Sums
from cpikan.psi.kernels.cpu_field import demodulate, fill_row_weights, node_buffers
from cpikan.psi.kernels.cpu_phasors import BLOCK, LARGE, TURN, empty, jit
from cpikan.psi.kernels.cpu_search import empty_waves, find_orders, remember_heights, search_buffers
from cpikan.psi.kernels.model import LOW_SIGMA_RAD
from cpikan.psi.model.flags import Flag

_f = np.float32
_INVALID, _SATURATED = int(Flag.INVALID), int(Flag.SATURATED)
_LOW, _AMBIGUOUS = int(Flag.LOW_MODULATION), int(Flag.AMBIGUOUS)
_LOW_VARIANCE = _f((LOW_SIGMA_RAD / (2 * np.pi)) ** 2)  # cycles^2


@jit
def _wave_buffers(wavelengths, shown):  # type: ignore[no-untyped-def]
    """Make room for a block: sums of a wavelength, quality, and phases and weights of all wavelengths.

    Modulation has room where it is ``shown``.
    """
    modulation = empty() if shown else np.empty(0, np.float32)
    return (
        Sums(empty(), empty(), empty(), empty(), empty()),
        Quality(empty(), modulation, empty(), empty(), np.ones(BLOCK, np.float32)),
        empty_waves(wavelengths),
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
def _is_measured(snr, snr_min):  # type: ignore[no-untyped-def]
    return (snr >= snr_min) & (snr > _f(0)) & (snr < LARGE)


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
        modulation[x] = modulation_sum[x] * share if modulation_sum[x] < LARGE else _f(0)


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
        modulation[x] = modulation_sum[x] if modulation_sum[x] < LARGE else _f(0)
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
    found, aside, last = search_buffers(wavelengths, width)
    every = kept.order.shape[0] > 0  # what is kept has the runner-up of every pixel
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
            find_orders(waves, model, quality, snr_min, every, last[part], found, aside, block.n)
            remember_heights(waves, found, last[part])
            if every:
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
