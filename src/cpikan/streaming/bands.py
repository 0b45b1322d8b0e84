"""Bands: the runs of image rows that travel through the engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """Rows [start, stop) of an image, the index-th of their list."""

    index: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def split_bands(height: int, rows: int, align: int = 1) -> tuple[Band, ...]:
    """Cut ``height`` rows into bands of about ``rows``, each starting at a multiple of ``align``; the last may be shorter."""
    step = max(align, rows // align * align)
    starts = range(0, height, step)
    return tuple(Band(i, start, min(start + step, height)) for i, start in enumerate(starts))
