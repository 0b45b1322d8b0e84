"""Demodulated rows as turns and weights, with the orders the pixel pass would choose: what a refiner begins with."""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.cpu import CpuKernels, _mask_argument
from cpikan.psi.kernels.cpu_blocks import _buffers, _height_block, _inside, _search_buffers, _take_plane, search, totals
from cpikan.psi.kernels.cpu_phasors import (
    BLOCK,
    field_quality,
    field_sums,
    jit,
    light,
    line_weights,
    phase_turns,
    quality,
    shares,
    sums,
    unlock,
)
from cpikan.psi.kernels.weight_field import EXTRAS
from cpikan.psi.refine.protocol import TurnRows

_f = np.float32


@jit
def turn_rows(  # type: ignore[no-untyped-def]
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
    carre,
    field,
    turns_out,
    weight_out,
    order_out,
    best_out,
    second_out,
    height,
    sigma,
    modulation,
    flags,
    finest,
):
    """Rows [row0, row0 + rows) of a band: what `height_rows` works with, kept instead of formed into heights."""
    width = frames.shape[3]
    u, v, a, top, snr, power, clipped, weak, keep = _buffers()
    total, start, best, second, order, shift = _search_buffers()
    wavelengths = len(ratio)
    turns = np.empty((wavelengths, BLOCK), np.float32)
    weight = np.empty((wavelengths, BLOCK), np.float32)
    spare = np.empty((4, 1), np.float32)
    alone = np.empty((2 * wavelengths + 2, 1), np.float32)
    saturation, snr_min, misfit_max = level[0], level[1], level[3]
    wide = counts[1] > counts[0]
    if field is not None:
        nodes, first_node, spacing_y, spacing, responses = field
        lines = np.empty(nodes.shape[1:], np.float32)
        size = 3 * frames.shape[1] + EXTRAS
        ramp = np.arange(BLOCK).astype(np.float32)
        block = np.empty((frames.shape[1], BLOCK), np.float32)
    for y in range(row0, row0 + rows):
        if field is not None:
            row = image_row + y
            line_weights(nodes, 2 * (row // spacing_y - first_node), shares(row, spacing_y), lines)
        for x0 in range(0, width, BLOCK):
            n = min(BLOCK, width - x0)
            for x in range(n):
                snr[x] = _f(0)
                power[x] = _f(0)
                clipped[x] = _f(0)
                weak[x] = _f(0)
            for i in range(wavelengths):
                source = int(planes[i, 3])
                if field is None:
                    sums(carre, frames, source, y, x0, n, weights, u, v, a, top)
                    phase_turns(u, v, turns[i], n)
                    quality(u, v, a, top, n, source, noise, saturation, weight[i], snr, power, clipped, weak)
                else:
                    line = lines[source]
                    light(frames, source, y, x0, n, responses[source], block)
                    field_sums(block, x0, n, line, spacing, ramp, u, v, a, top)
                    if responses[source, 14] != 0:
                        unlock(x0, n, line, size, spacing, ramp, u, v)
                    phase_turns(u, v, turns[i], n)
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
                        weight[i],
                        snr,
                        power,
                        clipped,
                        weak,
                    )
                at_start = planes[i, 0] + planes[i, 1] * (image_row + y - planes[i, 4])
                if at_start != 0 or planes[i, 2] != 0:
                    _take_plane(turns[i], _f(at_start + planes[i, 2] * (x0 - planes[i, 5])), _f(planes[i, 2]), n)
            totals(turns[0], weight, ratio, limits[0], total, start, n)
            search(turns, weight, ratio, start, limits[1], total, counts[0], n, best, second, order, shift)
            _inside(mask, y, x0, n, keep)
            if wide:
                for x in range(n):
                    if best[x] > misfit_max and snr[x] >= snr_min and clipped[x] == _f(0) and keep[x] > _f(0):
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
            for i in range(wavelengths):
                for x in range(n):
                    turns_out[i, y, x0 + x] = turns[i, x]
                    weight_out[i, y, x0 + x] = weight[i, x]
            for x in range(n):
                order_out[y, x0 + x] = order[x]
                best_out[y, x0 + x] = best[x]
                second_out[y, x0 + x] = second[x]
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
                limits[4],
                wavelengths,
                finest,
                n,
                height[y, x0 : x0 + n],
                sigma[y, x0 : x0 + n],
                modulation[y, x0 : x0 + n],
                flags[y, x0 : x0 + n],
            )


class TurnKernels(CpuKernels):
    """The pixel pass on the CPU, stopped before heights are formed; threads and bands change no bit of the result."""

    def turns(self, frames: np.ndarray, first_row: int, mask: np.ndarray | None, out: TurnRows) -> TurnRows:
        """Turns, weights and the pixel's own orders of a band (L, K, rows, W) that starts at image row ``first_row``."""
        inside = _mask_argument(mask)
        ratio, planes, limits, counts = self._search
        field = self._field_rows(frames, first_row)
        fixed = (inside, self._weights, self._noise, self._level, ratio, planes, limits, counts, self._carre, field)
        search = self._model.search
        assert search is not None, "two or more wavelengths have an order search"

        def run(row0: int, rows: int) -> None:
            turn_rows(frames, row0, rows, first_row, *fixed, *out, search.finest)

        self._share(frames.shape[2], run)
        return out
