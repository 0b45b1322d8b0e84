"""Apertures: which pixels of an image count - circles, annuli, rectangles, masks, and their unions and intersections."""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray

from cpikan.errors import NUMBER, InputError, check_type
from cpikan.storage.formats import format_of

EDGE = 1 + 1e-9  # the farthest pixel of a circle drawn around pixels stays inside after rounding
_BLOCK_ROWS = 256
_FARTHEST_PX = 1e9


class Aperture(ABC):
    """A set of pixels, read by rows; ``a & b``, ``a | b`` and ``~a`` are sets too.

    ``identity`` names the set in the plan of a run: equal names mean equal pixels. ``pupil`` is the circle on which
    polynomials are fitted, None where the set has none of its own.
    """

    @property
    @abstractmethod
    def identity(self) -> str: ...

    @property
    def pupil(self) -> Circle | None:
        return None

    @abstractmethod
    def rows(self, start: int, stop: int, width: int) -> UInt8[np.ndarray, "rows w"]:
        """Give rows [start, stop), shape (stop - start, width), 1 where pixels count."""

    def stretched(self, aspect: float) -> Aperture:
        """Make the circles of the set round on pixels whose rows lie ``aspect`` times as far apart as their columns."""
        return self

    def check(self, shape: tuple[int, int]) -> None:
        """Raise InputError when the set does not fit an image (H, W) or holds no pixel of it."""
        starts = range(0, shape[0], _BLOCK_ROWS)
        if not any(self.rows(start, min(start + _BLOCK_ROWS, shape[0]), shape[1]).any() for start in starts):
            raise InputError(f"{self.identity} lets no pixel of an image of {shape[1]} x {shape[0]} pixels in")

    def cut(self, start: int, heights: Float[np.ndarray, "*maps rows w"]) -> None:
        """Put NaN where pixels of rows from ``start`` (..., rows, W) do not count, in place."""
        rows = self.rows(start, start + heights.shape[-2], heights.shape[-1])
        np.copyto(heights, np.nan, where=rows == 0)

    def __and__(self, other: Aperture) -> Aperture:
        return _Both(self, other)

    def __or__(self, other: Aperture) -> Aperture:
        return _Either(self, other)

    def __invert__(self) -> Aperture:
        return _Outside(self)


@dataclass(frozen=True)
class Circle(Aperture):
    """Pixels whose centres lie within ``radius`` of column ``x``, row ``y``, and not within ``inner`` (an annulus).

    Pixels, first pixel centre at 0; where pixels are not square, the rows lie ``aspect`` columns apart and the radii count
    in columns. Raises InputError for a radius that is not positive, or an inner one not below it.
    """

    x: float
    y: float
    radius: float
    inner: float = 0.0
    aspect: float = 1.0

    def __post_init__(self) -> None:
        for name in ("x", "y", "radius", "inner", "aspect"):
            check_type(f"{name} of a circle", getattr(self, name), NUMBER, "a number of pixels")
        within = all(abs(number) <= _FARTHEST_PX for number in self.numbers)  # false for what is no number, too
        if not (within and 0 < self.aspect < math.inf) or self.radius <= 0 or not 0 <= self.inner < self.radius:
            raise InputError(
                f"circle {self.x:g},{self.y:g},{self.radius:g},{self.inner:g} is not one: give X,Y,R with R above zero, "
                f"or X,Y,R,INNER with INNER below R, in pixels, none beyond {_FARTHEST_PX:g}"
            )

    @classmethod
    def parse(cls, text: str) -> Circle:
        """Read ``X,Y,R`` or ``X,Y,R,INNER`` in pixels; raises InputError for anything else."""
        try:
            numbers = [float(part) for part in re.split(r"[,\s]+", text.strip())]
        except ValueError:
            numbers = []
        if len(numbers) not in (3, 4):
            raise InputError(f"circle {text!r} is not X,Y,R or X,Y,R,INNER: give pixels, such as 390,295,225")
        return cls(*numbers)

    @property
    def identity(self) -> str:
        annulus = f",{self.inner!r}" if self.inner else ""
        stretched = f", rows {self.aspect!r} columns apart" if self.aspect != 1 else ""
        return f"circle {self.x!r},{self.y!r},{self.radius!r}{annulus}{stretched}"

    def stretched(self, aspect: float) -> Circle:
        return replace(self, aspect=aspect)

    @property
    def pupil(self) -> Circle:
        return self

    @property
    def obscuration(self) -> float:
        """Divide the inner by the outer radius."""
        return self.inner / self.radius

    @property
    def numbers(self) -> list[float]:
        """List the centre and the radii in pixels, as ``--circle`` takes them, and an aspect that is not 1."""
        return [self.x, self.y, self.radius, self.inner, *([self.aspect] if self.aspect != 1 else [])]

    def coordinates(
        self, rows: NDArray[np.integer], columns: NDArray[np.integer]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scale pixel centres to (y, x) in units of the radius from the centre."""
        y, x = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
        return (y - self.y) * self.aspect / self.radius, (x - self.x) / self.radius

    def rows(self, start: int, stop: int, width: int) -> UInt8[np.ndarray, "rows w"]:
        return self._between(start, stop, width, self.radius**2, self.inner**2).astype(np.uint8)

    def inside(self, start: int, stop: int, width: int) -> Bool[np.ndarray, "rows w"]:
        """Tell on which pixels polynomials of this circle are fitted, its edges included even after rounding."""
        return self._between(start, stop, width, (self.radius * EDGE) ** 2, (self.inner / EDGE) ** 2)

    def check(self, shape: tuple[int, int]) -> None:
        height, width = shape
        nearest_x = min(max(round(self.x), 0), width - 1)
        nearest_y = min(max(round(self.y), 0), height - 1)
        if (nearest_x - self.x) ** 2 + ((nearest_y - self.y) * self.aspect) ** 2 > self.radius**2:
            raise InputError(
                f"{self.identity} lies outside the image of {width} x {height} pixels: give X,Y,R in pixels"
            )

    def _between(self, start: int, stop: int, width: int, most: float, least: float) -> Bool[np.ndarray, "rows w"]:
        down, across = (np.arange(start, stop)[:, None] - self.y) * self.aspect, np.arange(width)[None, :] - self.x
        square = down**2 + across**2
        return (square <= most) & (square >= least)


@dataclass(frozen=True)
class Rectangle(Aperture):
    """Pixels of columns [left, right) and rows [top, bottom), such as one site of a wafer."""

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        for name in ("left", "top", "right", "bottom"):
            check_type(f"{name} of a rectangle", getattr(self, name), NUMBER, "a number of pixels")
        if self.left > self.right or self.top > self.bottom:
            raise InputError(
                f"rectangle of columns {self.left} to {self.right} and rows {self.top} to {self.bottom} ends before it begins: "
                "give left below right and top below bottom"
            )

    @property
    def identity(self) -> str:
        return f"rectangle {self.left},{self.top},{self.right},{self.bottom}"

    def rows(self, start: int, stop: int, width: int) -> UInt8[np.ndarray, "rows w"]:
        row, column = np.arange(start, stop)[:, None], np.arange(width)[None]
        inside = (row >= self.top) & (row < self.bottom) & (column >= self.left) & (column < self.right)
        return inside.astype(np.uint8)


@dataclass(frozen=True)
class Mask(Aperture):
    """A mask array (H, W), nonzero (and not NaN) where pixels count, memory-mapped or in memory; ``label`` names it."""

    array: np.ndarray = field(repr=False)
    label: str = "array"

    def __post_init__(self) -> None:
        shape = np.shape(self.array)
        if len(shape) != 2 or min(shape) < 1:
            raise InputError(
                f"mask {self.label} has the shape {shape}: give a 2-D array, (H, W), nonzero where pixels count"
            )

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
    def identity(self) -> str:  # read once, a few rows at a time
        digest = hashlib.sha256()
        for start in range(0, len(self.array), _BLOCK_ROWS):
            digest.update(np.ascontiguousarray(np.ma.filled(self.array[start : start + _BLOCK_ROWS], 0)).data)
        return f"{Path(self.label).name} {digest.hexdigest()[:16]}"

    def rows(self, start: int, stop: int, width: int) -> UInt8[np.ndarray, "rows w"]:
        values = np.asarray(np.ma.filled(self.array[start:stop, :width], 0))  # a pixel that is masked does not count
        counts = values != 0
        return (counts & ~np.isnan(values) if values.dtype.kind == "f" else counts).astype(np.uint8)

    def check(self, shape: tuple[int, int]) -> None:
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


@dataclass(frozen=True)
class _Pair(Aperture):
    first: Aperture
    second: Aperture

    def stretched(self, aspect: float) -> Aperture:
        return replace(self, first=self.first.stretched(aspect), second=self.second.stretched(aspect))

    def check(self, shape: tuple[int, int]) -> None:
        self.first.check(shape)
        self.second.check(shape)
        super().check(shape)


class _Both(_Pair):
    @property
    def identity(self) -> str:
        return f"({self.first.identity} & {self.second.identity})"

    @property
    def pupil(self) -> Circle | None:
        return self.first.pupil or self.second.pupil

    def rows(self, start: int, stop: int, width: int) -> UInt8[np.ndarray, "rows w"]:
        return self.first.rows(start, stop, width) & self.second.rows(start, stop, width)


class _Either(_Pair):
    @property
    def identity(self) -> str:
        return f"({self.first.identity} | {self.second.identity})"

    def rows(self, start: int, stop: int, width: int) -> UInt8[np.ndarray, "rows w"]:
        return self.first.rows(start, stop, width) | self.second.rows(start, stop, width)


@dataclass(frozen=True)
class _Outside(Aperture):
    inner: Aperture

    def stretched(self, aspect: float) -> Aperture:
        return replace(self, inner=self.inner.stretched(aspect))

    @property
    def identity(self) -> str:
        return f"~{self.inner.identity}"

    def rows(self, start: int, stop: int, width: int) -> UInt8[np.ndarray, "rows w"]:
        return self.inner.rows(start, stop, width) ^ np.uint8(1)


def aperture_of(circle: str | None, mask: str | Path | None) -> Aperture | None:
    """Read the pixels that ``--circle`` and ``--mask`` let in, both where both are given; None for all pixels."""
    disc = Circle.parse(circle) if circle else None
    drawn = Mask.open(mask) if mask else None
    return disc & drawn if disc is not None and drawn is not None else disc or drawn


def laid_on(aperture: Aperture | None, shape: tuple[int, int], aspect: float) -> Aperture | None:
    """Stretch an aperture to the pixels of an image; InputError where it lets none of them in."""
    if aperture is None:
        return None
    aperture = aperture.stretched(aspect)
    aperture.check(shape)
    return aperture


def pupil_of(aperture: Aperture | None) -> Circle | None:
    """Return the circle that an aperture brings along for polynomials, None where it brings none."""
    return None if aperture is None else aperture.pupil


class ExtentScan:
    """The circle around all valid pixels of an image, from bands of its mask in any order; memory is O(rows)."""

    def __init__(self) -> None:
        self._ends: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
        self.pixels = 0

    def add(self, start: int, valid: Bool[np.ndarray, "rows w"]) -> None:
        """Take the mask of the rows from ``start``."""
        rows = np.flatnonzero(valid.any(1))
        first = valid[rows].argmax(1)
        last = valid.shape[1] - 1 - valid[rows, ::-1].argmax(1)
        self._ends.append((start + rows, first, last))
        self.pixels += int(np.count_nonzero(valid))

    def pupil(self, aspect: float = 1.0) -> Circle:
        """Centre a circle on the box of the valid pixels, reaching the farthest; raises InputError where none is.

        Rows lie ``aspect`` columns apart.
        """
        if not self.pixels:
            raise InputError("no pixel is valid: there is nothing to fit, check the mask")
        rows, first, last = (np.concatenate(part) for part in zip(*self._ends, strict=True))
        y, x = (rows.min() + rows.max()) / 2, (first.min() + last.max()) / 2
        # the farthest pixel of a row from any column is its first or its last one
        reach = np.maximum(np.abs(first - x), np.abs(last - x))
        radius = float(np.hypot((rows - y) * aspect, reach).max())
        return Circle(float(x), float(y), max(0.5, radius), aspect=aspect)


def circle_around(masks: Iterable[tuple[int, Bool[np.ndarray, "rows w"]]], aspect: float = 1.0) -> Circle:
    """Find the circle around all pixels that are valid in bands (first row, mask), with rows ``aspect`` columns apart.

    Raises InputError where none is valid.
    """
    scan = ExtentScan()
    for start, valid in masks:
        scan.add(start, valid)
    return scan.pupil(aspect)
