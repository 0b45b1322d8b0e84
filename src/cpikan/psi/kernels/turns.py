"""Demodulated rows as turns and weights, with the orders the pixel pass would choose: what a refiner begins with."""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.cpu import CpuKernels, _mask_argument
from cpikan.psi.kernels.cpu_blocks import height_block, mark_buffers, search_block, search_buffers, sum_buffers
from cpikan.psi.kernels.cpu_phasors import BLOCK, field_buffers, field_row, jit
from cpikan.psi.refine.protocol import TurnRows


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
    width, wavelengths = frames.shape[3], len(ratio)
    marks, found = mark_buffers(), search_buffers(wavelengths)
    snr, power, clipped, weak, keep = marks
    total, _, best, second, order, shift, turns, weight, _, _ = found
    work = (sum_buffers(), marks, found)
    extra = field_buffers(field, frames.shape[1])
    for y in range(row0, row0 + rows):
        field_row(field, extra, image_row + y)
        for x0 in range(0, width, BLOCK):
            n = min(BLOCK, width - x0)
            search_block(
                frames,
                y,
                x0,
                n,
                image_row + y,
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
                extra,
                work,
            )
            for i in range(wavelengths):
                for x in range(n):
                    turns_out[i, y, x0 + x] = turns[i, x]
                    weight_out[i, y, x0 + x] = weight[i, x]
            for x in range(n):
                order_out[y, x0 + x] = order[x]
                best_out[y, x0 + x] = best[x]
                second_out[y, x0 + x] = second[x]
            height_block(
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
