"""Compiled loops from frames to phasors: weighted sums, phases, and what their noise is worth, a block of a row at a time.

Weights are the same for all pixels (`sums`, `quality`) or follow parabolas over segments of a row (`field_sums`,
`field_quality`). All loops over pixels are branch-free, so that LLVM turns them into vector code.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.kernels.model import LONGEST_SEGMENT, LOW_SIGMA_RAD
from cpikan.psi.kernels.weight_field import EXTRAS
from cpikan.psi.model.frame_model import UNLOCK_ROUNDS

BLOCK = LONGEST_SEGMENT  # long runs for the prefetcher, and all buffers of a block in the second-level cache
_f = np.float32
TURN = _f(2 * np.pi)
_LOW_VARIANCE = _f((LOW_SIGMA_RAD / (2 * np.pi)) ** 2)  # turns^2
_ROUND_NOISE = _f(1e-6)  # relative: noise of u and v this equal is a circle

# "contract" allows fused multiply-add; nothing that reorders sums or breaks the rounding trick
jit: Any = functools.partial(compiled, error_model="numpy", fastmath={"contract", "nsz", "arcp"}, boundscheck=False)
inlined: Any = functools.partial(
    jit, forceinline=True
)  # calls with many arrays cost the vector loops their overlap checks


@jit
def empty():  # type: ignore[no-untyped-def]
    """A block of its own: slices of one allocation fail the overlap checks of vector loops and run ten times slower."""
    return np.empty(BLOCK, np.float32)


@jit
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


@jit
def _carre_sums(frames, wavelength, y, x0, n, weights, u, v, a, top):  # type: ignore[no-untyped-def]
    """Carre's square root for four frames; see `cpikan.psi.model.schemes`."""
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


@jit
def sums(carre, frames, wavelength, y, x0, n, weights, u, v, a, top):  # type: ignore[no-untyped-def]
    """The sums of the scheme in use."""
    if carre:
        _carre_sums(frames, wavelength, y, x0, n, weights, u, v, a, top)
    else:
        _phasor_sums(frames, wavelength, y, x0, n, weights, u, v, a, top)


@jit
def phase_turns(u, v, out, n):  # type: ignore[no-untyped-def]
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


@jit
def _variances(u, v, a, read, gain, var_u, cov, var_v, floor):  # type: ignore[no-untyped-def]
    """Of one pixel: B^2, the variance of B, and that of the phase in turns^2."""
    per_turn = _f(1) / (TURN * TURN)
    sample_variance = read + gain * max(a, _f(0))
    power = u * u + v * v
    spread = sample_variance * (var_u * v * v - _f(2) * cov * u * v + var_v * u * u)
    modulation_variance = sample_variance * (var_u + var_v) * _f(0.5)
    true_power = max(power - _f(2) * modulation_variance, power * _f(0.25))
    scale = power * true_power
    return power, modulation_variance, spread * per_turn / max(scale, _f(1e-30)) + floor


@jit
def quality(u, v, a, top, n, wavelength, noise, saturation, weight, snr, modulation, clipped, weak):  # type: ignore[no-untyped-def]
    """From the sums of one wavelength: weight 1/variance (turns^-2), signal-to-noise, modulation and flags of the block.

    ``noise`` (L, 6): read, gain, var u, cov u v, var v, phase floor (turns^2).
    """
    read, gain, floor = noise[wavelength, 0], noise[wavelength, 1], noise[wavelength, 5]
    var_u, cov, var_v = noise[wavelength, 2], noise[wavelength, 3], noise[wavelength, 4]
    if floor == _f(0) and abs(cov) < _ROUND_NOISE * var_u and abs(var_u - var_v) < _ROUND_NOISE * var_u:
        _round_quality(u, v, a, top, n, read, gain, var_u, saturation, weight, snr, modulation, clipped, weak)
        return
    for x in range(n):
        power, modulation_variance, variance = _variances(u[x], v[x], a[x], read, gain, var_u, cov, var_v, floor)
        weight[x] = _f(1) / max(variance, _f(1e-30))
        snr[x] += power / max(modulation_variance, _f(1e-30))
        modulation[x] += np.sqrt(power)
        clipped[x] = max(clipped[x], _f(1) if top[x] >= saturation else _f(0))
        weak[x] = weak[x] if variance <= _LOW_VARIANCE else _f(1)


@jit
def _round_quality(u, v, a, top, n, read, gain, var_u, saturation, weight, snr, modulation, clipped, weak):  # type: ignore[no-untyped-def]
    """The same where the noise of u and v is equal and independent, as with equal steps: one division instead of three."""
    turn2 = _f((2 * np.pi) ** 2)
    least = _f(1) / _LOW_VARIANCE
    for x in range(n):
        power = u[x] * u[x] + v[x] * v[x]
        per_variance = _f(1) / max((read + gain * max(a[x], _f(0))) * var_u, _f(1e-30))
        ratio = power * per_variance
        trusted = max(ratio - _f(2), ratio * _f(0.25)) * turn2
        weight[x] = min(trusted, _f(1e30))
        snr[x] += ratio
        modulation[x] += np.sqrt(power)
        clipped[x] = max(clipped[x], _f(1) if top[x] >= saturation else _f(0))
        weak[x] = weak[x] if trusted >= least else _f(1)


@jit
def line_weights(nodes, node, share, lines):  # type: ignore[no-untyped-def]
    """Through three node rows: what every segment of one image row works with; ``share`` says how much of each."""
    first, second, third = share
    for i in range(lines.shape[0]):
        above, middle, below, line = nodes[node, i], nodes[node + 1, i], nodes[node + 2, i], lines[i]
        for q in range(line.shape[0]):
            line[q] = first * above[q] + second * middle[q] + third * below[q]


@jit
def shares(row, spacing):  # type: ignore[no-untyped-def]
    """Lagrange's weights of node rows at 0, 1/2 and 1 of the spacing, for an image row."""
    f = (row % spacing) / spacing
    return _f((1 - f) * (1 - 2 * f)), _f(4 * f * (1 - f)), _f(f * (2 * f - 1))


@jit
def _every_third(values, first):  # type: ignore[no-untyped-def]
    return values[first], values[first + 3], values[first + 6], values[first + 9]


@jit
def _dot(weights, i0, i1, i2, i3):  # type: ignore[no-untyped-def]
    return weights[0] * i0 + weights[1] * i1 + (weights[2] * i2 + weights[3] * i3)


@jit
def _field_constants(line, count, x0, n, spacing, ramp, u, v, a, top):  # type: ignore[no-untyped-def]
    """Where the sums start, so that offsets are taken off."""
    size = 3 * count + EXTRAS
    for part in range((n + spacing - 1) // spacing):
        first = np.uintp(part * spacing)
        last = np.uintp(min((part + 1) * spacing, n))
        at, base = (x0 // spacing + part) * 3 * size + 3 * count, _f(part * spacing)
        bt, ct = at + size, at + 2 * size
        p0, p1, p2, q0, q1, q2 = line[at], line[bt], line[ct], line[at + 1], line[bt + 1], line[ct + 1]
        r0, r1, r2 = line[at + 2], line[bt + 2], line[ct + 2]
        for x in range(first, last):
            t = ramp[x] - base
            u[x] = p0 + t * (p1 + t * p2)
            v[x] = q0 + t * (q1 + t * q2)
            a[x] = r0 + t * (r1 + t * r2)
            top[x] = _f(0)


@jit
def light(frames, wavelength, y, x0, n, response, block):  # type: ignore[no-untyped-def]
    """Samples of a block of one row, as light: ``block`` (K, BLOCK) float32; ``response`` as `_pack_response` has it."""
    low, high, shift, scale = response[2], response[3], response[4], response[5]
    below, above = response[12], response[13]
    p0, p1, p2, p3, p4, p5 = response[6], response[7], response[8], response[9], response[10], response[11]
    for k in range(frames.shape[1]):
        row, out = frames[wavelength, k, y, x0 : x0 + n], block[k]
        if response[0] == _f(0):
            for x in range(n):
                out[x] = _f(row[x])
        else:
            for x in range(n):
                sample = _f(row[x])
                inside = min(max(sample, low), high)
                over, t = sample - inside, shift + scale * inside
                straight = over * (below if over < _f(0) else above)
                out[x] = sample + straight + (p0 + t * (p1 + t * (p2 + t * (p3 + t * (p4 + t * p5)))))


@jit
def field_sums(block, x0, n, line, spacing, ramp, u, v, a, top):  # type: ignore[no-untyped-def]
    """The sums of `_phasor_sums` over light (K, BLOCK) with weights that are parabolas over segments of ``spacing`` pixels.

    ``line`` is described in `cpikan.psi.kernels.weight_field`; ``ramp`` counts pixels. Each power of the ramp has sums of
    its own: then the inner loop multiplies samples by constants only. Indices are unsigned: loads stay vectors without
    slices, which cost too much for short segments.
    """
    count = block.shape[0]
    size = 3 * count + EXTRAS
    parts = (n + spacing - 1) // spacing
    _field_constants(line, count, x0, n, spacing, ramp, u, v, a, top)
    for k in range(0, count - 3, 4):
        row0, row1 = block[k, :n], block[k + 1, :n]
        row2, row3 = block[k + 2, :n], block[k + 3, :n]
        for part in range(parts):
            first = np.uintp(part * spacing)
            last = np.uintp(min((part + 1) * spacing, n))
            at, base = (x0 // spacing + part) * 3 * size + 3 * k, _f(part * spacing)
            c0, c1, c2 = _every_third(line, at), _every_third(line, at + size), _every_third(line, at + 2 * size)
            s0, s1 = _every_third(line, at + 1), _every_third(line, at + size + 1)
            s2 = _every_third(line, at + 2 * size + 1)
            m0, m1 = _every_third(line, at + 2), _every_third(line, at + size + 2)
            m2 = _every_third(line, at + 2 * size + 2)
            for x in range(first, last):
                t, i0, i1, i2, i3 = ramp[x] - base, _f(row0[x]), _f(row1[x]), _f(row2[x]), _f(row3[x])
                u[x] += _dot(c0, i0, i1, i2, i3) + t * (_dot(c1, i0, i1, i2, i3) + t * _dot(c2, i0, i1, i2, i3))
                v[x] += _dot(s0, i0, i1, i2, i3) + t * (_dot(s1, i0, i1, i2, i3) + t * _dot(s2, i0, i1, i2, i3))
                a[x] += _dot(m0, i0, i1, i2, i3) + t * (_dot(m1, i0, i1, i2, i3) + t * _dot(m2, i0, i1, i2, i3))
                top[x] = max(top[x], max(max(i0, i1), max(i2, i3)))
    for k in range(count - count % 4, count):
        row = block[k, :n]
        for part in range(parts):
            first = np.uintp(part * spacing)
            last = np.uintp(min((part + 1) * spacing, n))
            at, base = (x0 // spacing + part) * 3 * size + 3 * k, _f(part * spacing)
            bt, ct = at + size, at + 2 * size
            p0, p1, p2, q0, q1, q2 = line[at], line[bt], line[ct], line[at + 1], line[bt + 1], line[ct + 1]
            r0, r1, r2 = line[at + 2], line[bt + 2], line[ct + 2]
            for x in range(first, last):
                t, sample = ramp[x] - base, _f(row[x])
                u[x] += (p0 + t * (p1 + t * p2)) * sample
                v[x] += (q0 + t * (q1 + t * q2)) * sample
                a[x] += (r0 + t * (r1 + t * r2)) * sample
                top[x] = max(top[x], sample)


@jit
def unlock(x0, n, line, size, spacing, ramp, u, v):  # type: ignore[no-untyped-def]
    """Take the harmonics that are a fixed share of B off u and v, as `FrameModel.unlocked` does."""
    for part in range((n + spacing - 1) // spacing):
        first = np.uintp(part * spacing)
        last = np.uintp(min((part + 1) * spacing, n))
        at, base = (x0 // spacing + part) * 3 * size + size - 8, _f(part * spacing)
        p, q, r = line[at : at + 8], line[at + size : at + size + 8], line[at + 2 * size : at + 2 * size + 8]
        for x in range(first, last):
            t = ramp[x] - base
            a0, a1, a2, a3 = (
                p[0] + t * (q[0] + t * r[0]),
                p[1] + t * (q[1] + t * r[1]),
                p[2] + t * (q[2] + t * r[2]),
                p[3] + t * (q[3] + t * r[3]),
            )
            b0, b1, b2, b3 = (
                p[4] + t * (q[4] + t * r[4]),
                p[5] + t * (q[5] + t * r[5]),
                p[6] + t * (q[6] + t * r[6]),
                p[7] + t * (q[7] + t * r[7]),
            )
            along, across = u[x], v[x]
            for _ in range(UNLOCK_ROUNDS):
                size_of = np.sqrt(along * along + across * across)
                scale = _f(1) / max(size_of, _f(1e-30))
                c, s = along * scale, across * scale
                c2, s2 = c * c - s * s, _f(2) * c * s
                c3, s3 = c2 * c - s2 * s, s2 * c + c2 * s
                real = (a0 + a2) * c2 + (a3 - a1) * s2 + (b0 + b2) * c3 + (b3 - b1) * s3
                imag = (a1 + a3) * c2 + (a0 - a2) * s2 + (b1 + b3) * c3 + (b0 - b2) * s3
                along, across = u[x] - size_of * real, v[x] - size_of * imag
            u[x], v[x] = along, across


@jit
def field_quality(  # type: ignore[no-untyped-def]
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
    wavelength,
    noise,
    saturation,
    weight,
    snr,
    modulation,
    clipped,
    weak,
):
    """`quality` with a covariance that is a parabola over each segment."""
    read, gain, floor = noise[wavelength, 0], noise[wavelength, 1], noise[wavelength, 5]
    for part in range((n + spacing - 1) // spacing):
        first = np.uintp(part * spacing)
        last = np.uintp(min((part + 1) * spacing, n))
        at, base = (x0 // spacing + part) * 3 * size + size - EXTRAS + 3, _f(part * spacing)
        bt, ct = at + size, at + 2 * size
        p0, p1, p2, q0, q1, q2 = line[at], line[bt], line[ct], line[at + 1], line[bt + 1], line[ct + 1]
        r0, r1, r2 = line[at + 2], line[bt + 2], line[ct + 2]
        for x in range(first, last):
            t = ramp[x] - base
            var_u, cov, var_v = p0 + t * (p1 + t * p2), q0 + t * (q1 + t * q2), r0 + t * (r1 + t * r2)
            power, modulation_variance, variance = _variances(u[x], v[x], a[x], read, gain, var_u, cov, var_v, floor)
            weight[x] = _f(1) / max(variance, _f(1e-30))
            snr[x] += power / max(modulation_variance, _f(1e-30))
            modulation[x] += np.sqrt(power)
            clipped[x] = max(clipped[x], _f(1) if top[x] >= saturation else _f(0))
            weak[x] = weak[x] if variance <= _LOW_VARIANCE else _f(1)


@jit
def field_buffers(field, frames):  # type: ignore[no-untyped-def]
    """For steps that vary over the image: the weights of a row, a ramp of pixels, a block of every frame; else empty ones."""
    if field is not None:  # one type whatever the branch: an optional tuple cannot be taken apart
        lines, count = np.empty(field[0].shape[1:], np.float32), BLOCK
    else:
        lines, count = np.empty((0, 0), np.float32), 0
    return lines, np.arange(count).astype(np.float32), np.empty((frames, count), np.float32)


@jit
def field_row(field, extra, row):  # type: ignore[no-untyped-def]
    """Put the weights of an image row into the buffers, where weights vary."""
    if field is not None:
        nodes, first_node, spacing_y, _, _ = field
        line_weights(nodes, 2 * (row // spacing_y - first_node), shares(row, spacing_y), extra[0])


@inlined
def demodulate(  # type: ignore[no-untyped-def]
    frames, source, y, x0, n, weights, noise, saturation, carre, field, extra, used, turns, weight, marks
):
    """Phases and their weights of one wavelength of a block, and its part of the ``marks``.

    ``used`` are buffers for the sums, ``extra`` those of `field_buffers`; ``field`` is None where steps are uniform.
    """
    u, v, a, top = used
    snr, power, clipped, weak, _ = marks
    if field is None:
        sums(carre, frames, source, y, x0, n, weights, u, v, a, top)
        phase_turns(u, v, turns, n)
        quality(u, v, a, top, n, source, noise, saturation, weight, snr, power, clipped, weak)
    else:
        lines, ramp, block = extra
        spacing, responses = field[3], field[4]
        line, size = lines[source], 3 * frames.shape[1] + EXTRAS
        light(frames, source, y, x0, n, responses[source], block)
        field_sums(block, x0, n, line, spacing, ramp, u, v, a, top)
        if responses[source, 14] != 0:
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
            source,
            noise,
            responses[source, 1],
            weight,
            snr,
            power,
            clipped,
            weak,
        )
