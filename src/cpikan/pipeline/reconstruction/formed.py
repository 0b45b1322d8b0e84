"""The map as the stages so far have made it: heights formed from the newest arrays, a form taken off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpikan.pipeline.reconstruction.stage import Arrays, Context
from cpikan.psi.kernels import form
from cpikan.psi.model.flags import Flag
from cpikan.storage.writers.layout import SLOPES
from cpikan.streaming.engine import Band, split_bands
from cpikan.streaming.threads import RowPool
from cpikan.surface.grouped_form import GroupedForm, no_form

_INVALID = int(Flag.INVALID)
SlopeSource = Callable[[int, int], dict[str, np.ndarray]]


def put_slopes(found: Mapping[str, np.ndarray], flags: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
    """Copy rows by quantity into the buffers ``out``, NaN where the flags say that nothing was measured."""
    invalid = (flags & _INVALID) > 0
    for name, rows in out.items():
        rows[...] = found[name]
        rows[invalid] = np.nan


def levelled_slopes(source: SlopeSource, datum: GroupedForm, shape: tuple[int, int]) -> SlopeSource:
    """Take the derivatives of the form off the slopes of ``source``, exactly; the sigmas stay."""
    if not datum.basis.modes:
        return source
    from cpikan.surface.form_slopes import FormSlopes

    form = FormSlopes(datum, shape)

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        found = source(start, stop)
        for name, part in zip(SLOPES[:3], form.rows(start, stop), strict=True):
            found[name] = found[name] - part
        return found

    return rows


_SWEEP_PIXELS, _PIECE_PIXELS = 1 << 18, 1 << 17  # a band, or what a thread takes of one, and its form stay in the cache
# what the height of an unwrapped phase is formed from
_PHASES = ("phase_rad", "order", "component", "ambiguous", "flags")


@dataclass(frozen=True)
class FormedMap:
    """Rows of the map that ``arrays`` hold, without the form ``datum``; ``nm_per_rad`` turns unwrapped phases into heights."""

    arrays: Arrays
    datum: GroupedForm
    nm_per_rad: float
    pool: RowPool

    @classmethod
    def of(cls, arrays: Arrays, context: Context) -> FormedMap:
        """Make the map of a run as it stands."""
        datum = arrays.datum or no_form(context.facts["components"])
        return cls(arrays, datum, context.nm_per_rad, context.pool)

    @property
    def unwrapped(self) -> bool:
        """Tell whether heights are formed from unwrapped phases; else they are stored."""
        return "order" in self.arrays

    def sweep(self) -> tuple[Band, ...]:
        """Split the map into bands of sums: not the user's, so that sums of floats come out the same."""
        height, width = self.arrays.shape
        return split_bands(height, max(1, _SWEEP_PIXELS // width))

    def heights(self, band: Band) -> dict[str, np.ndarray]:
        """Form rows of ``height_nm``, with what they came from: ``flags`` and ``component`` of unwrapped phases."""
        rows = self.arrays.rows(
            (*(_PHASES if self.unwrapped else ("height_nm",)), "correction_nm"), band.start, band.stop
        )
        rows["height_nm"] = self._levelled(band, rows)
        return rows

    def rows(self, band: Band) -> dict[str, np.ndarray]:
        """Form the rows of all quantities that are stored or formed, the flags complete."""
        return self.complete(band, self.read(band))

    def read(self, band: Band) -> dict[str, np.ndarray]:
        """Copy the rows of all arrays."""
        return self.arrays.rows(self.arrays, band.start, band.stop)

    def complete(self, band: Band, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Complete rows that were read with their heights formed, in place."""
        rows["height_nm"] = self._levelled(band, rows)
        if "sigma_nm" not in rows:
            rows["sigma_nm"] = rows["sigma_rad"] * np.float32(self.nm_per_rad)
        if "flags_learned" in rows:
            rows["flags"] |= rows["flags_learned"]
        return rows

    def with_datum(self, band: Band) -> tuple[np.ndarray, np.ndarray | None]:
        """Form heights in nm of a band with the form in them, NaN where there is none, and read their components."""
        rows = self.arrays.rows(
            ("height_nm", "phase_rad", "order", "component", "correction_nm"), band.start, band.stop
        )
        more = rows.get("correction_nm", np.float32(0))
        if not self.unwrapped:
            return rows["height_nm"] + more, None
        phase = rows["phase_rad"] + 2 * np.pi * rows["order"]
        return np.where(rows["component"] > 0, phase * self.nm_per_rad + more, np.nan), rows["component"]

    def _levelled(self, band: Band, rows: dict[str, np.ndarray]) -> np.ndarray:
        """Form heights of a band without the form, float32, on all threads; flags of phases are completed in place."""
        datum, width = self.datum, self.arrays.shape[1]
        height, correction = np.empty((band.rows, width), np.float32), rows.get("correction_nm")
        form_rows: Any = form.form_rows

        def piece(start: int, stop: int) -> None:
            part = slice(start, stop)
            if self.unwrapped:
                shared = np.empty((0, 0))
                if datum.basis.modes:
                    shared = datum.rows(band.start + start, rows["component"][part] > 0)
                parts = (rows[name][part] for name in _PHASES)
                form_rows(*parts, self.nm_per_rad, datum.constants_nm, shared, height[part])
            else:
                height[part] = datum.remove(band.start + start, rows["height_nm"][part])
            if correction is not None:
                height[part] += correction[part]

        self.pool.map(piece, band.rows, min(-(-band.rows // self.pool.threads), max(1, _PIECE_PIXELS // width)))
        return height
