"""Regions of space (and time): where points lie, which parts the boundary has, and the outward normals there.

A region is filled from points of the unit cube, so that every sampling rule works on every region.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cpikan.errors import NUMBER, InputError, check_type, unknown_name

_AXES = ("x", "y", "z")


class Region(Protocol):
    """A bounded set of points (d coordinates) with named parts of its boundary."""

    @property
    def lower(self) -> tuple[float, ...]: ...

    @property
    def upper(self) -> tuple[float, ...]: ...

    @property
    def walls(self) -> tuple[str, ...]:
        """Name the parts of the boundary in space: all but the ends of time."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Name all parts of the boundary."""
        ...

    def inside(self, unit: np.ndarray, clustered: bool = True) -> np.ndarray:
        """Map the unit cube (n, d) to points (n, d) inside; ``clustered`` towards the boundary as Chebyshev's are."""
        ...

    def on(self, part: str, unit: np.ndarray, clustered: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Map the unit cube (n, d - 1) to points on a part of the boundary and outward normals, (n, d) each."""
        ...

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Tell which of the points (n, d) lie in the closed region, (n,)."""
        ...


@dataclass(frozen=True)
class Box:
    """The box between ``lower`` and ``upper``; ``axes`` name the coordinates, and one named t is time.

    Parts are "x=min", "x=max", "y=min", ...; those of t are no walls. ``breaks`` are places (axis, coordinate) inside where
    coefficients or data jump: parts too, called "x=0.3", that have two sides. Raises InputError for an empty box, and for
    breaks that are not inside it, or on more than one axis.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    axes: tuple[str, ...] = ()
    breaks: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        try:
            low, high = tuple(float(v) for v in self.lower), tuple(float(v) for v in self.upper)
        except (TypeError, ValueError):
            raise InputError(f"box from {self.lower} to {self.upper}: give numbers, one per axis in both") from None
        if len(low) != len(high) or not low or not all(math.isfinite(v) for v in low + high):
            raise InputError(f"box from {self.lower} to {self.upper}: give one finite number per axis in both")
        if any(a >= b for a, b in zip(low, high, strict=True)):
            raise InputError(f"box from {low} to {high} is empty: give the lower bound first")
        names = tuple(self.axes) or _AXES[: len(low)]
        if len(names) != len(low) or len(set(names)) != len(names):
            raise InputError(f"axes {names} of a box with {len(low)}: give one name for each, all different")
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)
        object.__setattr__(self, "axes", names)
        for axis, place in self.breaks:
            if axis not in names:
                raise unknown_name("axis of a break", axis, names)
            if not low[names.index(axis)] < place < high[names.index(axis)]:
                raise InputError(
                    f"break at {axis} = {place}: give a place inside the box from {low[names.index(axis)]} to "
                    f"{high[names.index(axis)]}"
                )
        if len({axis for axis, _ in self.breaks}) > 1 or any(axis == "t" for axis, _ in self.breaks):
            raise InputError(f"breaks {self.breaks}: give those of one axis in space")
        object.__setattr__(self, "breaks", tuple(sorted((axis, float(place)) for axis, place in self.breaks)))

    @property
    def parts(self) -> tuple[str, ...]:
        """Name both ends of every axis, and the breaks."""
        ends = tuple(f"{axis}={end}" for axis in self.axes for end in ("min", "max"))
        return (*ends, *self.inner)

    @property
    def inner(self) -> dict[str, tuple[int, float]]:
        """Give the number of the axis and the coordinate of every break, by the name of the part."""
        return {break_name(axis, place): (self.axes.index(axis), place) for axis, place in self.breaks}

    @property
    def walls(self) -> tuple[str, ...]:
        """Name both ends of every axis but time."""
        return tuple(part for part in self.parts if not part.startswith("t=") and part not in self.inner)

    def inside(self, unit: np.ndarray, clustered: bool = True) -> np.ndarray:
        """Stretch the unit cube to the box; clustered by the arcsine law per axis."""
        share = _arcsine(unit) if clustered else unit
        return np.asarray(self.lower) + share * (np.asarray(self.upper) - np.asarray(self.lower))

    def on(self, part: str, unit: np.ndarray, clustered: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Place points on one end of one axis, or on a break; normals point out of the box, of a break up the axis."""
        if part in self.inner:
            axis, place = self.inner[part]
            points = self.inside(np.insert(unit, axis, 0.5, axis=1), clustered)
            points[:, axis] = place
            return points, np.eye(len(self.lower))[np.full(len(unit), axis)]
        axis, end = self.side(part)
        share = np.full((len(unit), len(self.lower)), float(end))
        share[:, [a for a in range(len(self.lower)) if a != axis]] = _arcsine(unit) if clustered else unit
        points = np.asarray(self.lower) + share * (np.asarray(self.upper) - np.asarray(self.lower))
        points[:, axis] = self.upper[axis] if end else self.lower[axis]
        normals = np.zeros_like(points)
        normals[:, axis] = 1.0 if end else -1.0
        return points, normals

    def side(self, part: str) -> tuple[int, int]:
        """Find the number of the part's axis, and 0 for the lower or 1 for the upper end of that axis."""
        if part not in self.parts or part in self.inner:
            raise unknown_name("part of the boundary", part, self.parts)
        axis, end = part.split("=")
        return self.axes.index(axis), int(end == "max")

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Tell which points have every coordinate between its bounds."""
        return np.asarray(((points >= self.lower) & (points <= self.upper)).all(axis=-1))


@dataclass(frozen=True)
class Annulus:
    """Points between two circles about the origin; ``inner`` 0 is a disc. Parts are "outer" and, if there, "inner"."""

    inner: float
    outer: float

    def __post_init__(self) -> None:
        if not 0 <= self.inner < self.outer < math.inf:
            raise InputError(f"radii {self.inner} and {self.outer}: give 0 <= inner < outer")

    @property
    def lower(self) -> tuple[float, ...]:
        """Return the lower corner of the bounding box."""
        return (-self.outer, -self.outer)

    @property
    def upper(self) -> tuple[float, ...]:
        """Return the upper corner of the bounding box."""
        return (self.outer, self.outer)

    @property
    def parts(self) -> tuple[str, ...]:
        """Name the bounding circles."""
        return ("outer", "inner") if self.inner else ("outer",)

    @property
    def walls(self) -> tuple[str, ...]:
        """Name the bounding circles, all of them walls."""
        return self.parts

    def inside(self, unit: np.ndarray, clustered: bool = True) -> np.ndarray:
        """Spread evenly in area; clustered: density 1 / sqrt(1 - r^2) of a disc, the arcsine law in r of an annulus."""
        share = unit[:, 0]
        if not self.inner:
            radius = self.outer * np.sqrt(share * (2 - share) if clustered else share)
        elif clustered:
            radius = self.inner + (self.outer - self.inner) * _arcsine(share)
        else:
            radius = np.sqrt(self.inner**2 + share * (self.outer**2 - self.inner**2))
        angle = 2 * np.pi * unit[:, 1]
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)

    def on(self, part: str, unit: np.ndarray, clustered: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Spread points evenly along a circle."""
        if part not in self.parts:
            raise unknown_name("part of the boundary", part, self.parts)
        angle = 2 * np.pi * unit[:, 0]
        normals = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        return (self.outer * normals, normals) if part == "outer" else (self.inner * normals, -normals)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Tell which points have a radius between the two."""
        radius = np.hypot(points[:, 0], points[:, 1])
        return np.asarray((radius >= self.inner) & (radius <= self.outer))


@dataclass(frozen=True)
class Corner:
    """A re-entrant corner: where it is, the direction (radians) of the side that the region lies left of, and the angle
    inside, more than pi."""

    at: tuple[float, float]
    start_rad: float
    opening_rad: float


def corners(region: Region) -> tuple[Corner, ...]:
    """List the re-entrant corners of a region, where derivatives of solutions are infinite."""
    found: tuple[Corner, ...] = getattr(region, "corners", ())
    return found


def inner_parts(region: Region) -> dict[str, tuple[int, float]]:
    """Give the axis and the coordinate of every break of a box, by the name of the part; other regions have none."""
    return region.inner if isinstance(region, Box) else {}


def disc(radius: float = 1.0) -> Annulus:
    """Make a disc about the origin."""
    check_type("radius", radius, NUMBER, "a positive number")
    return Annulus(0.0, radius)


_L_CORNERS = np.array(
    [(0, 0), (0, 1), (-1, 1), (-1, -1), (1, -1), (1, 0)], float
)  # the sides a, b, c, d, e, f start here
_L_SQUARES = np.array([(-1, -1), (-1, 0), (0, -1)], float)


@dataclass(frozen=True)
class LShape:
    """[-1, 1]^2 without its quadrant x > 0, y > 0: the corner at the origin is re-entrant.

    Sides are a (x = 0, y > 0), then b ... f anticlockwise, so that f is y = 0, x > 0.
    """

    lower: tuple[float, ...] = (-1.0, -1.0)
    upper: tuple[float, ...] = (1.0, 1.0)

    @property
    def corners(self) -> tuple[Corner, ...]:
        """Give the re-entrant corner at the origin, from side a anticlockwise to side f."""
        return (Corner((0.0, 0.0), math.pi / 2, 1.5 * math.pi),)

    @property
    def parts(self) -> tuple[str, ...]:
        """Name the six sides."""
        return tuple("abcdef")

    @property
    def walls(self) -> tuple[str, ...]:
        """Name the six sides, all of them walls."""
        return self.parts

    def inside(self, unit: np.ndarray, clustered: bool = True) -> np.ndarray:
        """Fill three unit squares in turn; clustered towards the edges of each, thus towards the corner."""
        third = np.minimum((3 * unit[:, 0]).astype(int), 2)
        local = np.stack([3 * unit[:, 0] - third, unit[:, 1]], axis=-1)
        return _L_SQUARES[third] + (_arcsine(local) if clustered else local)

    def on(self, part: str, unit: np.ndarray, clustered: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Place points on one side."""
        if part not in self.parts:
            raise unknown_name("part of the boundary", part, self.parts)
        number = self.parts.index(part)
        start, end = _L_CORNERS[number], _L_CORNERS[(number + 1) % 6]
        share = _arcsine(unit) if clustered else unit
        along = (end - start) / np.linalg.norm(end - start)
        normal = np.array([along[1], -along[0]])
        return start + share * (end - start), np.broadcast_to(normal, (len(unit), 2)).copy()

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Tell which points lie inside the square, and not inside the quadrant that is missing."""
        square = (np.abs(points) <= 1).all(axis=-1)
        return np.asarray(square & ~((points > 0).all(axis=-1)))


def box(
    lower: Sequence[float],
    upper: Sequence[float],
    axes: Sequence[str] = (),
    *,
    breaks: Mapping[str, Sequence[float]] | None = None,
) -> Box:
    """Make the box between two corners, with ``breaks`` by the names of axes; see ``Box``."""
    for what, corner in (("lower", lower), ("upper", upper)):
        check_type(f"{what} corner of a box", corner, Iterable, "a number per axis, as [0, 1]")
    found = tuple((axis, place) for axis, places in (breaks or {}).items() for place in places)
    return Box(tuple(lower), tuple(upper), tuple(axes), found)


def break_name(axis: str, place: float) -> str:
    """Name the part of a boundary that a break is: "x=0.3"."""
    return f"{axis}={float(place)!r}"


def _arcsine(unit: np.ndarray) -> np.ndarray:
    """Map [0, 1] to [0, 1] with the density of Chebyshev's nodes."""
    return np.asarray(0.5 * (1 - np.cos(np.pi * unit)))
