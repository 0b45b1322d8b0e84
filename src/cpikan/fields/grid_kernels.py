"""Compiled loops that evaluate small Chebyshev networks on rows of an image, a block of pixels at a time in the cache."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cpikan.compiled import compiled

# 256 pixels: eight nodes, their sums and five polynomials in float32 are 21 KiB, which the first-level cache holds
BLOCK = 256
_f = np.float32
jit: Any = functools.partial(compiled, error_model="numpy", fastmath={"contract", "nsz"}, boundscheck=False)


@jit
def tanh(z, h, n):  # type: ignore[no-untyped-def]
    """Compute tanh by the rational minimax of degree 13 over 6 on +-7.905 (Eigen's ptanh), within 5 units of 2^-24."""
    for p in range(n):
        x = min(max(z[p], _f(-7.90531110763549805)), _f(7.90531110763549805))
        s = x * x
        top = _f(-2.76076847742355e-16) * s + _f(2.00018790482477e-13)
        top = top * s + _f(-8.60467152213735e-11)
        top = top * s + _f(5.12229709037114e-08)
        top = top * s + _f(1.48572235717979e-05)
        top = top * s + _f(6.37261928875436e-04)
        top = top * s + _f(4.89352455891786e-03)
        low = _f(1.19825839466702e-06) * s + _f(1.18534705686654e-04)
        low = low * s + _f(2.26843463243900e-03)
        low = low * s + _f(4.89352518554385e-03)
        h[p] = x * top / low


@jit
def polynomials(x, t, degree, n):  # type: ignore[no-untyped-def]
    """Write T_1 ... T_degree of a block into the rows of ``t``."""
    first = t[0]
    for p in range(n):
        first[p] = x[p]
    if degree > 1:
        twice = t[1]
        for p in range(n):
            twice[p] = _f(2) * x[p] * x[p] - _f(1)
    for k in range(2, degree):
        a, b, c = t[k - 2], t[k - 1], t[k]
        for p in range(n):
            c[p] = _f(2) * x[p] * b[p] - a[p]


@jit
def accumulate(z, t, w, degree, n):  # type: ignore[no-untyped-def]
    """Add to z the sum w_k T_k, several polynomials per visit so that the sum stays in registers."""
    k = 0
    while degree - k >= 5:
        a, b, c, d, e = t[k], t[k + 1], t[k + 2], t[k + 3], t[k + 4]
        wa, wb, wc, wd, we = w[k], w[k + 1], w[k + 2], w[k + 3], w[k + 4]
        for p in range(n):
            z[p] += wa * a[p] + wb * b[p] + wc * c[p] + wd * d[p] + we * e[p]
        k += 5
    while degree - k >= 2:
        a, b = t[k], t[k + 1]
        wa, wb = w[k], w[k + 1]
        for p in range(n):
            z[p] += wa * a[p] + wb * b[p]
        k += 2
    if k < degree:
        a, wa = t[k], w[k]
        for p in range(n):
            z[p] += wa * a[p]


@jit
def _layer(h, z, t, weight, bias, degree, n):  # type: ignore[no-untyped-def]
    """Pass one Chebyshev layer over a block: weight (inputs, outputs, degree)."""
    inputs, outputs = weight.shape[0], weight.shape[1]
    for o in range(outputs):
        row, constant = z[o], bias[o]
        for p in range(n):
            row[p] = constant
    for i in range(inputs):
        polynomials(h[i], t, degree, n)
        for o in range(outputs):
            accumulate(z[o], t, weight[i, o], degree, n)


@jit
def add_network(rows, columns, weights, biases, sizes, row_window, column_window, out):  # type: ignore[no-untyped-def]
    """Add window * network to ``out`` (R, C).

    The first layer is a sum over the two coordinates, so it comes as ``rows`` (R, n1) and ``columns`` (n1, C); layer l
    after it has weights[l] (inputs, outputs, degree), padded with zeros to the largest of each, biases[l], and sizes[l],
    its own inputs, outputs and degree.
    """
    layers, hidden = weights.shape[0], rows.shape[1]
    widest = max(weights.shape[1], weights.shape[2], hidden)
    h = np.empty((widest, BLOCK), np.float32)
    z = np.empty((widest, BLOCK), np.float32)
    t = np.empty((weights.shape[3], BLOCK), np.float32)
    for r in range(out.shape[0]):
        for first in range(0, out.shape[1], BLOCK):
            n = min(BLOCK, out.shape[1] - first)
            for j in range(hidden):
                entry, level, target = columns[j, first : first + n], rows[r, j], z[j]
                for p in range(n):
                    target[p] = level + entry[p]
            for layer in range(layers):
                inputs, outputs, degree = sizes[layer]
                for j in range(inputs):
                    tanh(z[j], h[j], n)
                _layer(h, z, t, weights[layer, :inputs, :outputs], biases[layer], degree, n)
            share, line, window, value = (
                row_window[r],
                out[r, first : first + n],
                column_window[first : first + n],
                z[0],
            )
            for p in range(n):
                line[p] += share * window[p] * value[p]


@jit
def add_tensor(rows, columns, out):  # type: ignore[no-untyped-def]
    """Add rows (R, M) times columns (M, C) to ``out`` (R, C), every pixel summed alike however many rows are asked for: the
    sums of a library's matrix product depend on that."""
    modes = rows.shape[1]
    z = np.empty(BLOCK, np.float32)
    for first in range(0, out.shape[1], BLOCK):
        n = min(BLOCK, out.shape[1] - first)
        part = np.ascontiguousarray(columns[:, first : first + n])
        for r in range(out.shape[0]):
            for p in range(n):
                z[p] = _f(0)
            accumulate(z, part, rows[r], modes, n)
            line = out[r, first : first + n]
            for p in range(n):
                line[p] += z[p]
