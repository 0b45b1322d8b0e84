"""Compiled loops for the derivatives of small Chebyshev networks on rows of an image: slopes and curvature in one pass."""

from __future__ import annotations

import numpy as np

from cpikan.fields.grid_kernels import accumulate, jit, polynomials, tanh

BLOCK = (
    128  # pixels: four streams of eight nodes, their sums and three sets of polynomials stay in the first-level cache
)
_f = np.float32


@jit
def _tanh_jet(z, h, n):  # type: ignore[no-untyped-def]
    """Compute value, two slopes and curvature (4, n) of tanh(z) from those of z: s' = 1 - s^2, s'' = -2 s s'."""
    tanh(z[0], h[0], n)
    first, second, bend = z[1], z[2], z[3]
    s, hy, hx, hc = h[0], h[1], h[2], h[3]
    for p in range(n):
        rate = _f(1) - s[p] * s[p]
        square = first[p] * first[p] + second[p] * second[p]
        hy[p] = rate * first[p]
        hx[p] = rate * second[p]
        hc[p] = rate * bend[p] - _f(2) * s[p] * rate * square


@jit
def _polynomial_slopes(x, t, d, e, degree, n):  # type: ignore[no-untyped-def]
    """Compute T', T'' of degree 1 ... ``degree`` into ``d`` and ``e``, by the derivatives of T_k+1 = 2 x T_k - T_k-1."""
    for p in range(n):
        d[0, p] = _f(1)
        e[0, p] = _f(0)
    if degree > 1:
        for p in range(n):
            d[1, p] = _f(4) * x[p]
            e[1, p] = _f(4)
    for k in range(2, degree):
        t1, d1, d0, dk, e1, e0, ek = t[k - 1], d[k - 1], d[k - 2], d[k], e[k - 1], e[k - 2], e[k]
        for p in range(n):
            dk[p] = _f(2) * (t1[p] + x[p] * d1[p]) - d0[p]
            ek[p] = _f(4) * d1[p] + _f(2) * x[p] * e1[p] - e0[p]


@jit
def _layer_jet(h, z, t, d, e, weight, bias, degree, n):  # type: ignore[no-untyped-def]
    """Pass one Chebyshev layer over the jets (inputs, 4, BLOCK) of a block; weight (inputs, outputs, degree)."""
    inputs, outputs = weight.shape[0], weight.shape[1]
    rate, bend = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for o in range(outputs):
        for p in range(n):
            z[o, 0, p] = bias[o]
            z[o, 1, p] = _f(0)
            z[o, 2, p] = _f(0)
            z[o, 3, p] = _f(0)
    for i in range(inputs):
        polynomials(h[i, 0], t, degree, n)
        _polynomial_slopes(h[i, 0], t, d, e, degree, n)
        hy, hx, hc = h[i, 1], h[i, 2], h[i, 3]
        for o in range(outputs):
            accumulate(z[o, 0], t, weight[i, o], degree, n)
            for p in range(n):
                rate[p] = _f(0)
                bend[p] = _f(0)
            accumulate(rate, d, weight[i, o], degree, n)
            accumulate(bend, e, weight[i, o], degree, n)
            zy, zx, zc = z[o, 1], z[o, 2], z[o, 3]
            for p in range(n):
                zy[p] += rate[p] * hy[p]
                zx[p] += rate[p] * hx[p]
                zc[p] += rate[p] * hc[p] + bend[p] * (hy[p] * hy[p] + hx[p] * hx[p])


@jit
def add_network_jet(rows, columns, weights, biases, sizes, row_window, column_window, out):  # type: ignore[no-untyped-def]
    """Add slopes and curvature of window * network to ``out`` (3, R, C).

    As `cpikan.fields.grid_kernels.add_network`, with the first and second derivatives by the coordinate along: ``rows``
    (3, R, n1), ``columns`` (3, n1, C), ``row_window`` (3, R), ``column_window`` (3, C).
    """
    layers, hidden = weights.shape[0], rows.shape[2]
    widest = max(weights.shape[1], weights.shape[2], hidden)
    h, z = np.empty((widest, 4, BLOCK), np.float32), np.empty((widest, 4, BLOCK), np.float32)
    degrees = weights.shape[3]
    t, d, e = (
        np.empty((degrees, BLOCK), np.float32),
        np.empty((degrees, BLOCK), np.float32),
        np.empty((degrees, BLOCK), np.float32),
    )
    for r in range(out.shape[1]):
        v0, v1, v2 = row_window[0, r], row_window[1, r], row_window[2, r]
        for first in range(0, out.shape[2], BLOCK):
            n = min(BLOCK, out.shape[2] - first)
            for j in range(hidden):
                for p in range(n):
                    z[j, 0, p] = rows[0, r, j] + columns[0, j, first + p]
                    z[j, 1, p] = rows[1, r, j]
                    z[j, 2, p] = columns[1, j, first + p]
                    z[j, 3, p] = rows[2, r, j] + columns[2, j, first + p]
            for layer in range(layers):
                inputs, outputs, degree = sizes[layer]
                for j in range(inputs):
                    _tanh_jet(z[j], h[j], n)
                _layer_jet(h, z, t, d, e, weights[layer, :inputs, :outputs], biases[layer], degree, n)
            u, uy, ux, uc = z[0, 0], z[0, 1], z[0, 2], z[0, 3]
            slope_y, slope_x, curvature = out[0, r], out[1, r], out[2, r]
            for p in range(n):
                w0, w1, w2 = column_window[0, first + p], column_window[1, first + p], column_window[2, first + p]
                slope_y[first + p] += w0 * (v1 * u[p] + v0 * uy[p])
                slope_x[first + p] += v0 * (w1 * u[p] + w0 * ux[p])
                across = w0 * v1 * uy[p] + v0 * w1 * ux[p]
                curvature[first + p] += (v2 * w0 + v0 * w2) * u[p] + _f(2) * across + v0 * w0 * uc[p]
