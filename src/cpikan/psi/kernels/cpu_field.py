"""Compiled loops from frames to phasors with weights that follow parabolas over segments of a row.

The layout of the segments' numbers is that of `cpikan.psi.kernels.weight_field`. Indices over pixels are unsigned: loads stay
vectors without slices, which cost too much for short segments.
"""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.arguments import NodeBuffers, Noise, Segments
from cpikan.psi.kernels.cpu_phasors import (
    BLOCK,
    add_modulation,
    add_quality,
    clipped_at,
    excess,
    fill_phase_cycles,
    fill_sums,
    inlined,
    is_quiet,
    jit,
    variances,
)
from cpikan.psi.kernels.weight_field import COVARIANCE, EXTRAS, LEAKS, OFFSETS, SUMS
from cpikan.psi.model.frame_model import UNLOCK_ROUNDS

_f = np.float32


@jit
def node_buffers(field, frames):  # type: ignore[no-untyped-def]
    """Allocate the buffers of a row whose weights vary; empty ones where ``field`` is None."""
    if field is not None:  # one type whatever the branch: an optional tuple cannot be taken apart
        lines, count = np.empty(field.nodes.shape[1:], np.float32), BLOCK
    else:
        lines, count = np.empty((0, 0), np.float32), 0
    return NodeBuffers(lines, np.arange(count).astype(np.float32), np.empty((frames, count), np.float32))


@jit
def fill_row_weights(field, row, lines):  # type: ignore[no-untyped-def]
    """Interpolate the weights of an image row from three node rows, where weights vary."""
    if field is not None:
        node = 2 * (row // field.spacing_y - field.first)
        _line_weights(field.nodes, node, _shares(row, field.spacing_y), lines)


@jit
def _line_weights(nodes, node, share, lines):  # type: ignore[no-untyped-def]
    first, second, third = share
    for i in range(lines.shape[0]):
        above, middle, below, line = nodes[node, i], nodes[node + 1, i], nodes[node + 2, i], lines[i]
        for q in range(line.shape[0]):
            line[q] = first * above[q] + second * middle[q] + third * below[q]


@jit
def _shares(row, spacing):  # type: ignore[no-untyped-def]
    """Work out Lagrange's weights of node rows at 0, 1/2 and 1 of the spacing, for an image row."""
    f = (row % spacing) / spacing
    return _f((1 - f) * (1 - 2 * f)), _f(4 * f * (1 - f)), _f(f * (2 * f - 1))


@jit
def _segment(segments, block, part):  # type: ignore[no-untyped-def]
    """Locate a segment of a block: its pixels [first, last), the number of the first, and where its numbers begin."""
    spacing = segments.spacing
    first = np.uintp(part * spacing)
    last = np.uintp(min((part + 1) * spacing, block.n))
    return first, last, _f(part * spacing), (block.x0 // spacing + part) * 3 * segments.size


@jit
def _parabola(segments, at):  # type: ignore[no-untyped-def]
    line, size = segments.line, segments.size
    return line[at], line[at + size], line[at + 2 * size]


@jit
def _four_sums(segments, at):  # type: ignore[no-untyped-def]
    """Take the parabolas of u, v, A and parity."""
    first, second = _parabola(segments, at), _parabola(segments, at + 1)
    return first, second, _parabola(segments, at + 2), _parabola(segments, at + 3)


@inlined
def _at(parabola, t):  # type: ignore[no-untyped-def]
    return parabola[0] + t * (parabola[1] + t * parabola[2])


@jit
def _four(line, at, step):  # type: ignore[no-untyped-def]
    return line[at], line[at + step], line[at + 2 * step], line[at + 3 * step]


@jit
def _four_parabolas(segments, at, step):  # type: ignore[no-untyped-def]
    """Take four parabolas that stand ``step`` apart: their constant terms, slopes and bends."""
    line, size = segments.line, segments.size
    return _four(line, at, step), _four(line, at + size, step), _four(line, at + 2 * size, step)


@jit
def _dot(weights, i0, i1, i2, i3):  # type: ignore[no-untyped-def]
    return weights[0] * i0 + weights[1] * i1 + (weights[2] * i2 + weights[3] * i3)


@jit
def _fill_offsets(segments, block, sums):  # type: ignore[no-untyped-def]
    """Start the sums at the constants that take frames' offsets off."""
    u, v, a, p, clipped = sums
    ramp = segments.ramp
    for part in range((block.n + segments.spacing - 1) // segments.spacing):
        first, last, base, at = _segment(segments, block, part)
        at += segments.size - EXTRAS + OFFSETS
        of_u, of_v, of_a, of_p = _four_sums(segments, at)
        for x in range(first, last):
            t = ramp[x] - base
            u[x] = _at(of_u, t)
            v[x] = _at(of_v, t)
            a[x] = _at(of_a, t)
            p[x] = _at(of_p, t)
            clipped[x] = _f(0)


@jit
def _fill_light(frames, source, block, curve, light):  # type: ignore[no-untyped-def]
    """Turn the samples of a block of one row into light (K, BLOCK) float32."""
    y, x0, n = block.y, block.x0, block.n
    low, high, shift, scale, below, above = curve.low, curve.high, curve.shift, curve.scale, curve.below, curve.above
    p0, p1, p2, p3, p4, p5 = curve.polynomial
    for k in range(frames.shape[1]):
        row, out = frames[source, k, y, x0 : x0 + n], light[k]
        if not curve.bent:
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
def _fill_sums(light, segments, block, ends, sums):  # type: ignore[no-untyped-def]
    """Sum light (K, BLOCK) with weights that are parabolas.

    Each power of the ramp has sums of its own: then the inner loop multiplies samples by constants only.
    """
    u, v, a, p, clipped = sums
    count, n, ramp = light.shape[0], block.n, segments.ramp
    parts = (n + segments.spacing - 1) // segments.spacing
    _fill_offsets(segments, block, sums)
    for k in range(0, count - 3, 4):
        row0, row1 = light[k, :n], light[k + 1, :n]
        row2, row3 = light[k + 2, :n], light[k + 3, :n]
        for part in range(parts):
            first, last, base, at = _segment(segments, block, part)
            at += SUMS * k
            c0, c1, c2 = _four_parabolas(segments, at, SUMS)
            s0, s1, s2 = _four_parabolas(segments, at + 1, SUMS)
            m0, m1, m2 = _four_parabolas(segments, at + 2, SUMS)
            p0, p1, p2 = _four_parabolas(segments, at + 3, SUMS)
            for x in range(first, last):
                t, i0, i1, i2, i3 = ramp[x] - base, _f(row0[x]), _f(row1[x]), _f(row2[x]), _f(row3[x])
                u[x] += _dot(c0, i0, i1, i2, i3) + t * (_dot(c1, i0, i1, i2, i3) + t * _dot(c2, i0, i1, i2, i3))
                v[x] += _dot(s0, i0, i1, i2, i3) + t * (_dot(s1, i0, i1, i2, i3) + t * _dot(s2, i0, i1, i2, i3))
                a[x] += _dot(m0, i0, i1, i2, i3) + t * (_dot(m1, i0, i1, i2, i3) + t * _dot(m2, i0, i1, i2, i3))
                p[x] += _dot(p0, i0, i1, i2, i3) + t * (_dot(p1, i0, i1, i2, i3) + t * _dot(p2, i0, i1, i2, i3))
                end = clipped_at(max(max(i0, i1), max(i2, i3)), min(min(i0, i1), min(i2, i3)), ends)
                clipped[x] = max(clipped[x], end)
    for k in range(count - count % 4, count):
        row = light[k, :n]
        for part in range(parts):
            first, last, base, at = _segment(segments, block, part)
            at += SUMS * k
            of_u, of_v, of_a, of_p = _four_sums(segments, at)
            for x in range(first, last):
                t, sample = ramp[x] - base, _f(row[x])
                u[x] += _at(of_u, t) * sample
                v[x] += _at(of_v, t) * sample
                a[x] += _at(of_a, t) * sample
                p[x] += _at(of_p, t) * sample
                clipped[x] = max(clipped[x], clipped_at(sample, sample, ends))


@jit
def _unlock(segments, block, u, v):  # type: ignore[no-untyped-def]
    """Take the harmonics that are a fixed share of B off u and v, as `FrameModel.unlocked` does."""
    ramp = segments.ramp
    for part in range((block.n + segments.spacing - 1) // segments.spacing):
        first, last, base, at = _segment(segments, block, part)
        at += segments.size - EXTRAS + LEAKS
        p, q, r = _four_parabolas(segments, at, 1)
        pp, qq, rr = _four_parabolas(segments, at + 4, 1)
        for x in range(first, last):
            t = ramp[x] - base
            a0, a1 = p[0] + t * (q[0] + t * r[0]), p[1] + t * (q[1] + t * r[1])
            a2, a3 = p[2] + t * (q[2] + t * r[2]), p[3] + t * (q[3] + t * r[3])
            b0, b1 = pp[0] + t * (qq[0] + t * rr[0]), pp[1] + t * (qq[1] + t * rr[1])
            b2, b3 = pp[2] + t * (qq[2] + t * rr[2]), pp[3] + t * (qq[3] + t * rr[3])
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
def _add_quality(sums, segments, block, noise, weight, quality):  # type: ignore[no-untyped-def]
    """Fill weights and add quality with a covariance that is a parabola over each segment."""
    u, v, a, p, clipped = sums
    snr, _, saturated, low_modulation, _ = quality
    ramp, read, gain, floor = segments.ramp, noise.read, noise.gain, noise.floor
    add_modulation(sums, block.n, quality)
    for part in range((block.n + segments.spacing - 1) // segments.spacing):
        first, last, base, at = _segment(segments, block, part)
        at += segments.size - EXTRAS + COVARIANCE
        of_uu, of_uv, of_vv = _parabola(segments, at), _parabola(segments, at + 1), _parabola(segments, at + 2)
        for x in range(first, last):
            t = ramp[x] - base
            here = Noise(read, gain, _at(of_uu, t), _at(of_uv, t), _at(of_vv, t), floor)
            power, modulation_variance, variance, sample_variance = variances(u[x], v[x], a[x], here)
            doubt = excess(p[x], a[x], _f(1) / sample_variance)
            weight[x] = _f(1) / (max(variance, _f(1e-30)) * doubt)
            snr[x] += power / (max(modulation_variance, _f(1e-30)) * doubt)
            saturated[x] = max(saturated[x], clipped[x])
            low_modulation[x] = low_modulation[x] if is_quiet(variance) else _f(1)


@inlined
def demodulate(frames, source, block, demodulator, field, nodes, sums, phase, weight, quality):  # type: ignore[no-untyped-def]
    """Fill phases and weights of one wavelength of a block and add to its ``quality``; ``field`` None: uniform steps."""
    noise = demodulator.noise[source]
    if field is None:
        fill_sums(demodulator.carre, frames, source, block, demodulator.weights, demodulator.ends, sums)
        fill_phase_cycles(sums.u, sums.v, phase, block.n)
        add_quality(sums, block.n, noise, weight, quality)
    else:
        curve = field.curves[source]
        segments = Segments(nodes.lines[source], SUMS * frames.shape[1] + EXTRAS, field.spacing_x, nodes.ramp)
        _fill_light(frames, source, block, curve, nodes.light)
        _fill_sums(nodes.light, segments, block, curve.ends, sums)
        if curve.locked:
            _unlock(segments, block, sums.u, sums.v)
        fill_phase_cycles(sums.u, sums.v, phase, block.n)
        _add_quality(sums, segments, block, noise, weight, quality)
