"""Writing: the output from the scratch arrays, all quantities that it stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cpikan.pipeline.reconstruction.passes import flat_bands
from cpikan.pipeline.reconstruction.stage import Arrays, Context, DerivedRows, FormedMap, Stage, put_slopes
from cpikan.pipeline.reconstruction.summary import map_figures
from cpikan.psi.kernels.statistics import COLUMNS, row_sums
from cpikan.psi.model.flags import Flag
from cpikan.storage.writers.layout import QUANTITIES
from cpikan.streaming.engine import Band, stream

_Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Write(Stage):
    """Forms the heights, computes what is derived, and puts the guesses in."""

    name: ClassVar[str] = "write"
    derives: tuple[str, ...] = ("height_nm", "sigma_nm")

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Write the rows that an earlier run has not."""
        formed, derived = FormedMap.of(arrays, context), _Derived(arrays, context)

        def compute(band: Band, rows: _Rows) -> tuple[_Rows, np.ndarray]:
            rows = formed.complete(band, rows)
            table = np.empty((band.rows, COLUMNS))
            row_sums(rows["height_nm"], rows["flags"], table)
            rows |= derived.rows(band, rows["flags"])
            if "guess_nm" in rows:  # after the sums: a guess is no measurement
                _put_in(rows.pop("guess_nm"), rows.pop("guess_sigma_nm"), rows)
            return rows, table

        with context.output.rows(durable=False) as sink:
            bands = flat_bands(context.shape, context.settings.band_rows, sink.first_row)
            with context.progress(self.name, context.shape[0] - sink.first_row) as progress:
                stream(bands, formed.read, compute, lambda band, item: sink.write(band.start, *item), progress=progress)
            sink.finish()
        return map_figures(sink.statistics, context.shape, sink.sample.pv_nm())


@dataclass(frozen=True)
class _Derived:
    """Rows that no array holds."""

    arrays: Arrays
    context: Context

    def rows(self, band: Band, flags: np.ndarray) -> _Rows:
        """Derive the rows of a band by quantity, on all threads, NaN where nothing was measured."""
        made: _Rows = {}
        for names, source in self.arrays.derived.items():
            out = {name: np.empty(flags.shape, QUANTITIES[name].dtype) for name in names}
            self._fill(source, band, flags, out)
            made |= out
        return made

    def _fill(self, source: DerivedRows, band: Band, flags: np.ndarray, out: _Rows) -> None:
        def piece(start: int, stop: int) -> None:
            found = source(band.start + start, band.start + stop)
            put_slopes(found, flags[start:stop], {name: rows[start:stop] for name, rows in out.items()})

        self.context.pool.map(piece, band.rows)


def _put_in(guess: np.ndarray, sigma: np.ndarray, rows: _Rows) -> None:
    """Put guesses and their sigma into rows of the output, with their flag; the pixels stay invalid: none was measured."""
    known = np.isfinite(guess)
    np.copyto(rows["height_nm"], guess, where=known)
    np.copyto(rows["sigma_nm"], sigma, where=known)
    rows["flags"][known] |= np.uint8(Flag.INPAINTED)
