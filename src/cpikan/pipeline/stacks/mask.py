"""Which pixels count: a mask file or a circle, read by rows like everything else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.formats import format_of
from cpikan.surface.pupil import Pupil

_BLOCK_ROWS = 256


@dataclass(frozen=True)
class Circle:
    """Pixels whose centres lie within ``radius`` of column ``x``, row ``y``, and not within ``inner`` (an annulus).

    Pixels, first pixel centre at 0. Raises InputError for a radius that is not positive, or an inner one not below it.
    """

    x: float
    y: float
    radius: float
    inner: float = 0.0

    def __post_init__(self) -> None:
        _ = self.pupil

    @classmethod
    def parse(cls, text: str) -> Circle:
        """Read ``X,Y,R`` or ``X,Y,R,INNER``; raises InputError for anything else."""
        pupil = Pupil.parse(text)
        return cls(pupil.x, pupil.y, pupil.radius, pupil.inner)

    @property
    def pupil(self) -> Pupil:
        """The same area, as the surface numbers take it."""
        return Pupil(self.x, self.y, self.radius, self.inner)

    @property
    def identity(self) -> str:
        annulus = f",{self.inner!r}" if self.inner else ""
        return f"circle {self.x!r},{self.y!r},{self.radius!r}{annulus}"

    def rows(self, start: int, stop: int, width: int) -> np.ndarray:
        """Rows [start, stop) as uint8, 1 inside; shape (stop - start, width)."""
        dy2 = (np.arange(start, stop)[:, None] - self.y) ** 2
        dx2 = (np.arange(width)[None, :] - self.x) ** 2
        return ((dx2 + dy2 <= self.radius**2) & (dx2 + dy2 >= self.inner**2)).astype(np.uint8)

    def check(self, shape: tuple[int, int]) -> None:
        """Raise InputError when no pixel of an image (H, W) lies inside."""
        height, width = shape
        nearest_x = min(max(round(self.x), 0), width - 1)
        nearest_y = min(max(round(self.y), 0), height - 1)
        if (nearest_x - self.x) ** 2 + (nearest_y - self.y) ** 2 > self.radius**2:
            raise InputError(
                f"{self.identity} lies outside the image of {width} x {height} pixels: give X,Y,R in pixels"
            )


@dataclass(frozen=True)
class Mask:
    """A mask array (H, W), nonzero (and not NaN) where pixels count, memory-mapped or in memory; ``label`` names it."""

    array: np.ndarray = field(repr=False)
    label: str = "mask"

    @classmethod
    def open(cls, path: str | Path) -> Mask:
        """Open a mask: .npy, or a grey image; raises InputError when it cannot be read or is not 2-D."""
        path = Path(path)
        known = format_of(path)
        if known is None or known.image is None or not path.is_file():
            raise InputError(f"mask {path} is not a file of a known kind: give a .npy or a grey image that exists")
        try:
            return cls(known.image(path), str(path))
        except InputError as failure:
            raise InputError(f"mask {failure}") from failure

    @cached_property
    def identity(self) -> str:
        """Name and content, for the plan of a run; the array is read once, a few rows at a time."""
        digest = hashlib.sha256()
        for start in range(0, len(self.array), _BLOCK_ROWS):
            digest.update(np.ascontiguousarray(self.array[start : start + _BLOCK_ROWS]).data)
        return f"{Path(self.label).name} {digest.hexdigest()[:16]}"

    def rows(self, start: int, stop: int, width: int) -> np.ndarray:
        """Rows [start, stop) as uint8, 1 where pixels count."""
        values = np.asarray(self.array[start:stop, :width])
        counts = values != 0
        return (counts & ~np.isnan(values) if values.dtype.kind == "f" else counts).astype(np.uint8)

    def check(self, shape: tuple[int, int]) -> None:
        """Raise InputError when the mask does not fit an image (H, W) or is empty."""
        if self.array.ndim != 2 or self.array.dtype.kind not in "buif":
            raise InputError(
                f"mask {self.label} has shape {self.array.shape} and type {self.array.dtype}: give a 2-D array of numbers"
            )
        if self.array.shape != shape:
            raise InputError(
                f"mask {self.label} is {self.array.shape}, the frames are {shape} (rows, columns): they must agree"
            )
        starts = range(0, shape[0], _BLOCK_ROWS)
        if not any(self.rows(start, start + _BLOCK_ROWS, shape[1]).any() for start in starts):
            raise InputError(f"mask {self.label} lets no pixel in: make it nonzero where pixels count")
