"""Compiled loops of the fused jets: Chebyshev bases of streams, and what flows back through them, point by point.

Streams of a point are rows (S, n): value, d first derivatives, then second ones. ``pairs`` (M, 3) holds (p, a, b): the
second derivative p takes part in u_a u_b. With ``active`` the rows are those of z with tanh(z) in place of the value,
and what enters the basis is tanh of z with its derivatives.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cpikan.compiled import compiled

jit: Any = functools.partial(compiled, error_model="numpy", fastmath={"contract", "nsz"}, boundscheck=False)


@jit
def _products(x, pairs, q):  # type: ignore[no-untyped-def]
    """Compute q_p = sum of u_a u_b over the pairs of p."""
    n = x.shape[1]
    q[:] = 0
    for m in range(len(pairs)):
        row, one, other = q[pairs[m, 0]], x[1 + pairs[m, 1]], x[1 + pairs[m, 2]]
        for i in range(n):
            row[i] += one[i] * other[i]


@jit
def _enter(u, d, pairs, active, slopes, x, q, before):  # type: ignore[no-untyped-def]
    """Prepare the streams ``x`` that enter the basis and their products ``q``; with ``active`` also tanh', tanh'', tanh''' and
    the products ``before`` of the streams of z."""
    streams, n = u.shape
    if not active:
        x[:] = u
    else:
        two = u.dtype.type(2)
        t, t1, t2, t3 = u[0], slopes[0], slopes[1], slopes[2]
        for i in range(n):
            x[0, i] = t[i]
            t1[i] = u.dtype.type(1) - t[i] * t[i]
            t2[i] = -two * t[i] * t1[i]
            t3[i] = -two * (t1[i] * t1[i] + t[i] * t2[i])
        _products(u, pairs, before)
        for s in range(1, streams):
            row, source = x[s], u[s]
            for i in range(n):
                row[i] = t1[i] * source[i]
        for p in range(streams - 1 - d):
            row, source = x[1 + d + p], before[p]
            for i in range(n):
                row[i] += t2[i] * source[i]
    _products(x, pairs, q)


@jit
def _tables(x, tables):  # type: ignore[no-untyped-def]
    """Compute T_1 ... T_K and derivatives, (orders, K, n): T_(k+1)^(j) = 2 j T_k^(j-1) + 2 x T_k^(j) - T_(k-1)^(j)."""
    orders, degree, n = tables.shape
    two = x.dtype.type(2)
    for j in range(orders):
        tables[j, 0] = 0
    for i in range(n):
        tables[0, 0, i] = x[i]
        tables[1, 0, i] = 1
    for k in range(1, degree):
        for j in range(orders):
            row, last = tables[j, k], tables[j, k - 1]
            for i in range(n):
                row[i] = two * x[i] * last[i]
            if j > 0:
                lower, factor = tables[j - 1, k - 1], x.dtype.type(2 * j)
                for i in range(n):
                    row[i] += factor * lower[i]
            if k > 1:
                past = tables[j, k - 2]
                for i in range(n):
                    row[i] -= past[i]
            elif j == 0:
                for i in range(n):
                    row[i] -= x.dtype.type(1)


@jit
def expand(u, d, pairs, active, out):  # type: ignore[no-untyped-def]
    """Write the basis of streams u (b, S, n) into ``out`` (b, S, K, n)."""
    points, streams, n = u.shape
    degree, second = out.shape[2], streams - 1 - d
    x, tables = np.empty((streams, n), u.dtype), np.empty((3, degree, n), u.dtype)
    slopes, q, before = np.empty((3, n), u.dtype), np.empty((second, n), u.dtype), np.empty((second, n), u.dtype)
    for b in range(points):
        _enter(u[b], d, pairs, active, slopes, x, q, before)
        _tables(x[0], tables)
        for k in range(degree):
            t1, t2 = tables[1, k], tables[2, k]
            out[b, 0, k] = tables[0, k]
            for a in range(d):
                row, source = out[b, 1 + a, k], x[1 + a]
                for i in range(n):
                    row[i] = t1[i] * source[i]
            for p in range(second):
                row, source, product = out[b, 1 + d + p, k], x[1 + d + p], q[p]
                for i in range(n):
                    row[i] = t2[i] * product[i] + t1[i] * source[i]


@jit
def _gather(push, f, d, sums):  # type: ignore[no-untyped-def]
    """Compute sums over k of answers (S, K, n) times the first, second and third derivatives f (3, K, n), into (3, S, n)."""
    streams, degree, n = push.shape
    sums[:] = 0
    for s in range(streams):
        one, two, three = sums[0, s], sums[1, s], sums[2, s]
        for k in range(degree):
            answer, f1, f2, f3 = push[s, k], f[0, k], f[1, k], f[2, k]
            if s == 0:
                for i in range(n):
                    one[i] += f1[i] * answer[i]
            elif s <= d:
                for i in range(n):
                    one[i] += f1[i] * answer[i]
                    two[i] += f2[i] * answer[i]
            else:
                for i in range(n):
                    one[i] += f1[i] * answer[i]
                    two[i] += f2[i] * answer[i]
                    three[i] += f3[i] * answer[i]


@jit
def _pull(x, q, sums, d, pairs, out):  # type: ignore[no-untyped-def]
    """Compute what a cost answers to x (S, n), from the ``sums`` of its answers to functions of x."""
    streams, n = x.shape
    value, bent = out[0], sums[1]
    out[:] = sums[0]
    for s in range(1, streams):
        source, answer = x[s], bent[s]
        for i in range(n):
            value[i] += source[i] * answer[i]
    for p in range(streams - 1 - d):
        product, answer = q[p], sums[2, 1 + d + p]
        for i in range(n):
            value[i] += product[i] * answer[i]
    for m in range(len(pairs)):
        answer, a, b = bent[1 + d + pairs[m, 0]], 1 + pairs[m, 1], 1 + pairs[m, 2]
        one, other, row, column = x[a], x[b], out[a], out[b]
        for i in range(n):
            row[i] += answer[i] * other[i]
        for i in range(n):
            column[i] += answer[i] * one[i]


@jit
def pull(u, d, pairs, spread, out):  # type: ignore[no-untyped-def]
    """Compute what a cost answers to the z of ``u`` (b, S, n), into ``out``, from its answer ``spread`` (b, S, K, n) to the
    basis."""
    points, streams, n = u.shape
    degree, second = spread.shape[2], streams - 1 - d
    x, tables = np.empty((streams, n), u.dtype), np.empty((4, degree, n), u.dtype)
    slopes, q, before = np.empty((3, 1, n), u.dtype), np.empty((second, n), u.dtype), np.empty((second, n), u.dtype)
    sums, found = np.empty((3, streams, n), u.dtype), np.empty((streams, 1, n), u.dtype)
    for b in range(points):
        _enter(u[b], d, pairs, True, slopes[:, 0], x, q, before)
        _tables(x[0], tables)
        _gather(spread[b], tables[1:], d, sums)
        _pull(x, q, sums, d, pairs, found[:, 0])
        _gather(found, slopes, d, sums)
        _pull(u[b], before, sums, d, pairs, out[b])
