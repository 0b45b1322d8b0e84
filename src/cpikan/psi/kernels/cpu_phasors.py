"""Compiled loops from frames to phasors: weighted sums, phases, and what their noise is worth, a block of a row at a time.

Weights are the same for all pixels here; `cpikan.psi.kernels.cpu_field` has those that vary. All loops over pixels are
branch-free, so that LLVM turns them into vector code.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.kernels.arguments import AT_BLACK, AT_WHITE, COSINE, MEAN, PARITY, SINE
from cpikan.psi.kernels.model import LONGEST_SEGMENT, LOW_SIGMA_RAD, PARITY_BEND, PARITY_MAX, PARITY_ROUNDING

BLOCK = LONGEST_SEGMENT  # long runs for the prefetcher, and all buffers of a block in the second-level cache
_f = np.float32
TURN = _f(2 * np.pi)
LARGE = _f(1e30)
_LOW_VARIANCE = _f((LOW_SIGMA_RAD / (2 * np.pi)) ** 2)  # cycles^2
_PARITY_MAX, _PARITY_BEND, _PARITY_ROUNDING = _f(PARITY_MAX), _f(PARITY_BEND), _f(PARITY_ROUNDING)
_ROUND_NOISE = _f(1e-6)  # relative: noise of u and v this equal is a circle

# "contract" allows fused multiply-add; nothing that reorders sums or breaks the rounding trick
jit: Any = functools.partial(compiled, error_model="numpy", fastmath={"contract", "nsz", "arcp"}, boundscheck=False)
inlined: Any = functools.partial(
    jit, forceinline=True
)  # calls with many arrays cost the vector loops their overlap checks


@jit
def empty():  # type: ignore[no-untyped-def]
    """Allocate one block: slices of one allocation fail the overlap checks of vector loops and run ten times slower."""
    return np.empty(BLOCK, np.float32)


@jit
def _weights_of(weights, source, k):  # type: ignore[no-untyped-def]
    return weights[COSINE, source, k], weights[SINE, source, k], weights[MEAN, source, k], weights[PARITY, source, k]


@inlined
def clipped_at(largest, smallest, ends):  # type: ignore[no-untyped-def]
    """Tell by a number in which end samples are clipped: `AT_WHITE`, `AT_BLACK`, or 0."""
    low = _f(AT_BLACK) if smallest <= ends[0] else _f(0)
    return _f(AT_WHITE) if largest >= ends[1] else low


@jit
def _linear_sums(frames, source, block, weights, ends, sums):  # type: ignore[no-untyped-def]
    """Sum K weighted frames over a block of one row: u, v, mean and parity; and note samples that are clipped."""
    u, v, a, p, clipped = sums
    y, x0, n = block.y, block.x0, block.n
    count = frames.shape[1]
    if count < 4:
        for x in range(n):
            u[x] = _f(0)
            v[x] = _f(0)
            a[x] = _f(0)
            p[x] = _f(0)
            clipped[x] = _f(0)
    for k in range(0, count - 3, 4):  # four frames per sweep: a quarter of the traffic of the sums
        c0, s0, m0, p0 = _weights_of(weights, source, k)
        c1, s1, m1, p1 = _weights_of(weights, source, k + 1)
        c2, s2, m2, p2 = _weights_of(weights, source, k + 2)
        c3, s3, m3, p3 = _weights_of(weights, source, k + 3)
        # slices: their indices are known not to be negative, so loads stay vectors
        row0, row1 = frames[source, k, y, x0 : x0 + n], frames[source, k + 1, y, x0 : x0 + n]
        row2, row3 = frames[source, k + 2, y, x0 : x0 + n], frames[source, k + 3, y, x0 : x0 + n]
        first = k == 0  # the sums are filled, not added to: a quarter of the traffic of four frames
        for x in range(n):
            i0, i1, i2, i3 = _f(row0[x]), _f(row1[x]), _f(row2[x]), _f(row3[x])
            u[x] = c0 * i0 + c1 * i1 + (c2 * i2 + c3 * i3) + (_f(0) if first else u[x])
            v[x] = s0 * i0 + s1 * i1 + (s2 * i2 + s3 * i3) + (_f(0) if first else v[x])
            a[x] = m0 * i0 + m1 * i1 + (m2 * i2 + m3 * i3) + (_f(0) if first else a[x])
            p[x] = p0 * i0 + p1 * i1 + (p2 * i2 + p3 * i3) + (_f(0) if first else p[x])
            end = clipped_at(max(max(i0, i1), max(i2, i3)), min(min(i0, i1), min(i2, i3)), ends)
            clipped[x] = end if first else max(clipped[x], end)
    for k in range(count - count % 4, count):
        c0, s0, m0, p0 = _weights_of(weights, source, k)
        row = frames[source, k, y, x0 : x0 + n]
        for x in range(n):
            sample = _f(row[x])
            u[x] += c0 * sample
            v[x] += s0 * sample
            a[x] += m0 * sample
            p[x] += p0 * sample
            clipped[x] = max(clipped[x], clipped_at(sample, sample, ends))


@jit
def _carre_sums(frames, source, block, weights, ends, sums):  # type: ignore[no-untyped-def]
    """Demodulate four frames by Carre's square root; see `cpikan.psi.model.schemes`."""
    u, v, a, p, clipped = sums
    y, x0, n = block.y, block.x0, block.n
    real, imag = weights[COSINE, source, 0], weights[COSINE, source, 1]
    scale, sign = weights[COSINE, source, 2], weights[COSINE, source, 3]
    size = abs(scale) * sign
    row0, row1 = frames[source, 0, y, x0 : x0 + n], frames[source, 1, y, x0 : x0 + n]
    row2, row3 = frames[source, 2, y, x0 : x0 + n], frames[source, 3, y, x0 : x0 + n]
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
        p[x] = _f(0)
        clipped[x] = clipped_at(max(max(i0, i1), max(i2, i3)), min(min(i0, i1), min(i2, i3)), ends)


@jit
def fill_sums(carre, frames, source, block, weights, ends, sums):  # type: ignore[no-untyped-def]
    """Sum the frames of a wavelength by the scheme in use."""
    if carre:
        _carre_sums(frames, source, block, weights, ends, sums)
    else:
        _linear_sums(frames, source, block, weights, ends, sums)


@jit
def fill_phase_cycles(u, v, out, n):  # type: ignore[no-untyped-def]
    """Fill atan2(v, u) in cycles, [-0.5, 0.5]; minimax polynomial of degree 15 on [0, 1]: 6e-9 cycles, in float32 3e-8."""
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


@jit
def excess(parity, mean, per_variance):  # type: ignore[no-untyped-def]
    """Work out by how much the variance of a pixel is above what noise explains: 1 unless its samples contradict each other."""
    over = max((parity * parity - _PARITY_ROUNDING * mean * mean) * per_variance - _PARITY_MAX, _f(0))
    return _f(1) + over * (_f(2) + _PARITY_BEND * over)


@jit
def variances(u, v, a, noise):  # type: ignore[no-untyped-def]
    """Work out B^2, the variance of B, that of the phase in cycles^2, and that of a sample, of one pixel."""
    per_turn = _f(1) / (TURN * TURN)
    sample_variance = noise.read + noise.gain * max(a, _f(0))
    power = u * u + v * v
    spread = sample_variance * (noise.var_u * v * v - _f(2) * noise.cov * u * v + noise.var_v * u * u)
    modulation_variance = sample_variance * (noise.var_u + noise.var_v) * _f(0.5)
    true_power = max(power - _f(2) * modulation_variance, power * _f(0.25))
    scale = power * true_power
    return power, modulation_variance, spread * per_turn / max(scale, _f(1e-30)) + noise.floor, sample_variance


@jit
def is_quiet(variance):  # type: ignore[no-untyped-def]
    """Compare a phase's variance with what counts as low modulation; false for NaN."""
    return variance <= _LOW_VARIANCE


@jit
def add_modulation(sums, n, quality):  # type: ignore[no-untyped-def]
    """Add the modulation of a wavelength, where there is room for it: its roots are a tenth of the time of heights alone."""
    modulation = quality.modulation_sum
    if modulation.shape[0] > 0:
        for x in range(n):
            modulation[x] += np.sqrt(sums.u[x] * sums.u[x] + sums.v[x] * sums.v[x])


@jit
def add_quality(sums, n, noise, weight, quality):  # type: ignore[no-untyped-def]
    """Fill the weight 1/variance (cycles^-2) from the sums of one wavelength and add to the quality of the block."""
    u, v, a, p, clipped = sums
    snr, _, saturated, low_modulation, _ = quality
    round_noise = (
        abs(noise.cov) < _ROUND_NOISE * noise.var_u and abs(noise.var_u - noise.var_v) < _ROUND_NOISE * noise.var_u
    )
    if noise.floor == _f(0) and round_noise:
        _add_round_quality(sums, n, noise, weight, quality)
        return
    add_modulation(sums, n, quality)
    for x in range(n):
        power, modulation_variance, variance, sample_variance = variances(u[x], v[x], a[x], noise)
        doubt = excess(p[x], a[x], _f(1) / sample_variance)
        weight[x] = _f(1) / (max(variance, _f(1e-30)) * doubt)
        snr[x] += power / (max(modulation_variance, _f(1e-30)) * doubt)
        saturated[x] = max(saturated[x], clipped[x])
        low_modulation[x] = low_modulation[x] if is_quiet(variance) else _f(1)


@jit
def _add_round_quality(sums, n, noise, weight, quality):  # type: ignore[no-untyped-def]
    """Add quality where the noise of u and v is equal and independent, as with equal steps: one division, not three."""
    u, v, a, p, clipped = sums
    snr, _, saturated, low_modulation, _ = quality
    read, gain, var_u = noise.read, noise.gain, noise.var_u
    turn2 = _f((2 * np.pi) ** 2)
    least = _f(1) / _LOW_VARIANCE
    add_modulation(sums, n, quality)
    for x in range(n):
        power = u[x] * u[x] + v[x] * v[x]
        per_variance = _f(1) / max((read + gain * max(a[x], _f(0))) * var_u, _f(1e-30))
        ratio = power * per_variance
        trusted = max(ratio - _f(2), ratio * _f(0.25)) * turn2
        certainty = _f(1) / excess(p[x], a[x], per_variance * var_u)
        weight[x] = min(trusted, _f(1e30)) * certainty
        snr[x] += ratio * certainty
        saturated[x] = max(saturated[x], clipped[x])
        low_modulation[x] = low_modulation[x] if trusted >= least else _f(1)
