"""A polygon as an aperture: the pixels whose centres lie inside."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from cpikan.errors import InputError
from cpikan.surface.apertures.aperture import Aperture


@dataclass(frozen=True)
class Polygon(Aperture):
    """Pixels inside a polygon by the even-odd rule; ``corners`` are (x, y) in pixels, the first pixel centre at 0."""

    corners: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.corners) < 3 or not np.isfinite(np.array(self.corners, float)).all():
            raise InputError(
                f"a polygon of {len(self.corners)} corners is none: give three or more, X,Y each, in pixels"
            )

    @classmethod
    def parse(cls, text: str) -> Polygon:
        """Read ``X,Y X,Y X,Y ...`` in pixels; raises InputError for anything else."""
        try:
            numbers = [[float(part) for part in pair.split(",")] for pair in re.split(r"[\s;]+", text.strip())]
        except ValueError:
            numbers = [[]]
        if any(len(pair) != 2 for pair in numbers):
            raise InputError(f"polygon {text!r} is not X,Y X,Y X,Y ...: give corners in pixels")
        return cls(tuple((pair[0], pair[1]) for pair in numbers))

    @property
    def identity(self) -> str:
        return "polygon " + " ".join(f"{x!r},{y!r}" for x, y in self.corners)

    def rows(self, start: int, stop: int, width: int) -> UInt8[np.ndarray, "rows w"]:
        columns, out = np.arange(width), np.zeros((stop - start, width), np.uint8)
        corners = np.array(self.corners, float)
        ends = np.roll(corners, -1, 0)
        for row in range(start, stop):
            crossing = (corners[:, 1] <= row) != (ends[:, 1] <= row)
            a, b = corners[crossing], ends[crossing]
            places = np.sort(a[:, 0] + (row - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1]))
            out[row - start] = np.searchsorted(places, columns, side="right") % 2
        return out
