"""The pupil: the circle or annulus of an image on which polynomials are fitted and numbers are taken."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError

EDGE = 1 + 1e-9  # the farthest pixel of a circle drawn around pixels stays inside after rounding


@dataclass(frozen=True)
class Pupil:
    """Centre (column ``x``, row ``y``) and ``radius`` in pixels, first pixel centre at 0; ``inner`` radius of an annulus.

    Raises InputError for a radius that is not positive, or an inner radius that is not smaller.
    """

    x: float
    y: float
    radius: float
    inner: float = 0.0

    def __post_init__(self) -> None:
        finite = bool(np.isfinite([self.x, self.y, self.radius, self.inner]).all())
        if not finite or self.radius <= 0 or not 0 <= self.inner < self.radius:
            raise InputError(
                f"circle {self.x:g},{self.y:g},{self.radius:g},{self.inner:g} is not one: give X,Y,R with R above zero, "
                "or X,Y,R,INNER with INNER below R, in pixels"
            )

    @classmethod
    def parse(cls, text: str) -> Pupil:
        """Read ``X,Y,R`` or ``X,Y,R,INNER`` in pixels; raises InputError for anything else."""
        try:
            numbers = [float(part) for part in re.split(r"[,\s]+", text.strip())]
        except ValueError:
            numbers = []
        if len(numbers) not in (3, 4):
            raise InputError(f"circle {text!r} is not X,Y,R or X,Y,R,INNER: give pixels, such as 390,295,225")
        return cls(*numbers)

    @property
    def obscuration(self) -> float:
        """Inner over outer radius."""
        return self.inner / self.radius

    def coordinates(
        self, rows: NDArray[np.integer], columns: NDArray[np.integer]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixel centres as (y, x) in units of the radius from the centre."""
        y, x = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
        return (y - self.y) / self.radius, (x - self.x) / self.radius

    def inside(self, start: int, stop: int, width: int) -> NDArray[np.bool_]:
        """Which pixel centres of rows [start, stop) lie in the pupil, edges included; shape (stop - start, width)."""
        square = (np.arange(start, stop)[:, None] - self.y) ** 2 + (np.arange(width)[None, :] - self.x) ** 2
        return (square <= (self.radius * EDGE) ** 2) & (square >= (self.inner / EDGE) ** 2)


class ExtentScan:
    """The circle around all valid pixels of an image, from bands of its mask in any order; memory is O(rows)."""

    def __init__(self) -> None:
        self._ends: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
        self.pixels = 0

    def add(self, start: int, valid: NDArray[np.bool_]) -> None:
        """Take the mask of the rows from ``start``."""
        rows = np.flatnonzero(valid.any(1))
        first = valid[rows].argmax(1)
        last = valid.shape[1] - 1 - valid[rows, ::-1].argmax(1)
        self._ends.append((start + rows, first, last))
        self.pixels += int(np.count_nonzero(valid))

    def pupil(self) -> Pupil:
        """Centred on the box around the valid pixels, reaching the farthest of them; InputError when there is none."""
        if not self.pixels:
            raise InputError("no pixel is valid: there is nothing to fit, check the mask")
        rows, first, last = (np.concatenate(part) for part in zip(*self._ends, strict=True))
        y, x = (rows.min() + rows.max()) / 2, (first.min() + last.max()) / 2
        # the farthest pixel of a row from any column is its first or its last one
        reach = np.maximum(np.abs(first - x), np.abs(last - x))
        return Pupil(float(x), float(y), max(0.5, float(np.hypot(rows - y, reach).max())))
