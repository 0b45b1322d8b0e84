"""The CPU's order search: all orders of a range, or the one that continues the row before where no other can win."""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.arguments import Aside, Found, Waves
from cpikan.psi.kernels.cpu_phasors import BLOCK, LARGE, empty, jit

_f = np.float32
_ROUND = _f(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds a float32 to the nearest integer


@jit
def empty_waves(wavelengths):  # type: ignore[no-untyped-def]
    """Make room for the phases and weights of a block."""
    return Waves(np.empty((wavelengths, BLOCK), np.float32), np.empty((wavelengths, BLOCK), np.float32))


@jit
def _empty_found():  # type: ignore[no-untyped-def]
    return Found(empty(), empty(), empty(), empty(), empty(), empty())


@jit
def search_buffers(wavelengths, width):  # type: ignore[no-untyped-def]
    """Make room for the search of a block, for pixels of it set aside, and for heights (cycles) of a row, none known yet."""
    aside = Aside(np.empty(BLOCK, np.int32), empty(), empty_waves(wavelengths), _empty_found())
    return _empty_found(), aside, np.full(width, np.nan, np.float32)


@jit
def start_search(waves, ratio, low, found, n):  # type: ignore[no-untyped-def]
    """Fill the variance of the joint height (cycles^2 of the anchor) and the lowest order in range."""
    anchor, weight, total, start = waves.phase_cycles[0], waves.weight, found.variance, found.start
    for x in range(n):
        certainty = weight[0, x]  # the ratio of the anchor is one
        for i in range(1, len(ratio)):
            certainty += weight[i, x] * (ratio[i] * ratio[i])
        total[x] = _f(1) / certainty
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
        second[x] = LARGE
        order[x] = start[x]
    for j in range(1, limits.orders, 2):
        for x in range(n):
            k0 = start[x] + _f(j)
            k1 = k0 + _f(1)
            anchor0, anchor1 = phase[0, x] + k0, phase[0, x] + k1
            misfit0, shift0 = order_misfit(phase, weight, ratio, anchor0, total[x], x)
            misfit1, shift1 = order_misfit(phase, weight, ratio, anchor1, total[x], x)
            misfit0 = misfit0 if anchor0 < end else LARGE
            misfit1 = misfit1 if anchor1 < end else LARGE  # the odd one at the end is beyond the limit
            swap = misfit1 < misfit0
            low, high = min(misfit0, misfit1), max(misfit0, misfit1)
            old = best[x]
            better = low < old
            second[x] = min(min(second[x], high), max(low, old))
            order[x] = (k1 if swap else k0) if better else order[x]
            shift[x] = (shift1 if swap else shift0) if better else shift[x]
            best[x] = min(low, old)


@jit
def _continue(waves, model, last, found, open_, n):  # type: ignore[no-untyped-def]
    """Try the order next to ``last``, heights of the row before; note by ones in ``open_`` where another may win or come near.

    Residuals of two orders differ by a vector of the grid of wrapped phases, of least length ``model.apart``. So by the
    triangle inequality the root of the other's chi squared is at least sqrt(apart w) - sqrt(best), w the least weight, and
    the other is more than the margin above the best where 4 best + 2 margin < apart w.
    """
    phase, weight = waves
    total, start, best, second, order, shift = found
    ratio, apart, end = model.ratio, model.apart, model.near.end
    margin, misfit_max = _f(2) * model.margin_min, model.misfit_max
    for x in range(n):
        near = ((last[x] - phase[0, x]) + _ROUND) - _ROUND
        anchor = phase[0, x] + near
        misfit, correction = order_misfit(phase, weight, ratio, anchor, total[x], x)
        least = weight[0, x]
        for i in range(1, len(ratio)):
            least = min(least, weight[i, x])
        inside = (near >= start[x]) & (anchor < end)
        sure = inside & (_f(4) * misfit + margin < apart * least) & (misfit <= misfit_max)  # false for NaN
        best[x], shift[x], order[x], second[x] = misfit, correction, near, LARGE
        open_[x] = _f(0) if sure else _f(1)


@jit
def _listed(open_, places, n):  # type: ignore[no-untyped-def]
    """List the places of ones, and count them."""
    count = 0
    for x in range(n):
        places[count] = x
        count += 1 if open_[x] != _f(0) else 0
    return count


@jit
def _unfit(model, quality, snr_min, best, places, count):  # type: ignore[no-untyped-def]
    """Leave of the places those of measured pixels that fit nowhere near, and count them."""
    snr, _, saturated, _, in_mask = quality
    left = 0
    for j in range(count):
        x = places[j]
        places[left] = x
        lost = (best[x] > model.misfit_max) & (snr[x] >= snr_min) & (saturated[x] == _f(0)) & (in_mask[x] > _f(0))
        left += 1 if lost else 0
    return left


@jit
def _search_aside(waves, ratio, limits, found, aside, count):  # type: ignore[no-untyped-def]
    """Search all orders of a range for the pixels at the first ``count`` places that are set aside."""
    places, _, some, got = aside
    for i in range(len(ratio)):
        for j in range(count):
            some.phase_cycles[i, j] = waves.phase_cycles[i, places[j]]
            some.weight[i, j] = waves.weight[i, places[j]]
    start_search(some, ratio, limits.low, got, count)
    search(some, ratio, limits, got, count)
    for j in range(count):
        x = places[j]
        found.best[x], found.second[x] = got.best[j], got.second[j]
        found.order[x], found.shift[x] = got.order[j], got.shift[j]


@jit
def find_orders(waves, model, quality, snr_min, every, last, found, aside, n):  # type: ignore[no-untyped-def]
    """Find the best order of each pixel of a block, as the search of all orders would: only where one may come near it is
    there a runner-up, unless ``every`` pixel asks for its own. ``last`` (n,) are heights of the row before.

    Pixels that fit nowhere in the range ``near`` are looked for in the whole.
    """
    start_search(waves, model.ratio, model.near.low, found, n)
    if every:
        _fill_ones(aside.open, n)
    else:
        _continue(waves, model, last, found, aside.open, n)
    count = _listed(aside.open, aside.places, n)
    if 2 * count > n:
        search(waves, model.ratio, model.near, found, n)
    elif count > 0:
        _search_aside(waves, model.ratio, model.near, found, aside, count)
    if model.whole.orders > model.near.orders:
        count = _unfit(model, quality, snr_min, found.best, aside.places, count)
        if count > 0:
            _search_aside(waves, model.ratio, model.whole, found, aside, count)


@jit
def _fill_ones(values, n):  # type: ignore[no-untyped-def]
    for x in range(n):
        values[x] = _f(1)


@jit
def remember_heights(waves, found, last):  # type: ignore[no-untyped-def]
    """Keep the heights (cycles of the anchor) of a block, beside which orders of the next row are tried."""
    for x in range(last.shape[0]):
        last[x] = waves.phase_cycles[0, x] + found.order[x]
