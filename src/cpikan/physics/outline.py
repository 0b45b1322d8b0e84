"""Outline: a region of the plane by the edges around it, straight and round, with holes, and unions and differences of such."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, pairwise

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.physics.edges import Arc, Edge, Point, Segment, crossings
from cpikan.physics.regions import Annulus, Box, Corner, LShape, Region

_TICKS = 513  # of the table that turns shares of the area into coordinates, between two ends of edges
_NEAR = 1e-12  # of the size: what is as close to an edge is on it


@dataclass(frozen=True)
class Outline:
    """The region to the left of ``edges``, pairs of a part's name and an edge; several edges may be of one part.

    A `Region`, with ``signed_distance`` besides. Raises InputError for edges that do not close, or enclose nothing.
    """

    edges: tuple[tuple[str, Edge], ...]

    def __post_init__(self) -> None:
        ends = [edge.at(np.array([0.0, 1.0])) for _, edge in self.edges]
        if not ends:
            raise InputError("an outline without edges: give pairs of a name and an edge")
        starts, stops = np.stack(ends, axis=1)
        apart = np.linalg.norm(stops[:, None] - starts, axis=2).min(axis=1)
        worst = int(apart.argmax())
        if apart[worst] > 1e-9 * max(edge.length for _, edge in self.edges):
            name, place = self.edges[worst][0], tuple(stops[worst].tolist())
            raise InputError(f"the edge of part {name!r} ends at {place}, where no edge begins: close the outline")
        if not self.area > 0:
            raise InputError(
                f"an outline around an area of {self.area:g}: give edges anticlockwise, those of holes clockwise"
            )

    @cached_property
    def area(self) -> float:
        """Give the area."""
        return sum(edge.area() for _, edge in self.edges)

    @cached_property
    def lower(self) -> tuple[float, ...]:
        """Return the lower corner of the bounding box."""
        return tuple(self._extremes.min(axis=0).tolist())

    @cached_property
    def upper(self) -> tuple[float, ...]:
        """Return the upper corner of the bounding box."""
        return tuple(self._extremes.max(axis=0).tolist())

    @property
    def parts(self) -> tuple[str, ...]:
        """Name the parts in the order of their first edges."""
        return tuple(dict.fromkeys(name for name, _ in self.edges))

    @property
    def walls(self) -> tuple[str, ...]:
        """Name the parts, all of them walls."""
        return self.parts

    @property
    def corners(self) -> tuple[Corner, ...]:
        """List the re-entrant corners between straight edges."""
        straight = [edge for _, edge in self.edges if isinstance(edge, Segment)]
        found = []
        for after in straight:
            for before in straight:
                if math.dist(before.end, after.start) < _NEAR * self.size:
                    out, back = _direction(after), _direction(before.reversed())
                    opening = (back - out) % (2 * math.pi)
                    if math.pi * (1 + 1e-9) < opening < 2 * math.pi * (1 - 1e-9):
                        found.append(Corner(after.start, out, opening))
        return tuple(found)

    def inside(self, unit: np.ndarray, clustered: bool = True) -> np.ndarray:
        """Spread evenly in area: x by the area to its left, y over the chords there; clustered by the arcsine law in both."""
        share = 0.5 * (1 - np.cos(np.pi * unit)) if clustered else unit
        # where the outline ends in an upright edge no chord is met on it, but just before
        x = np.minimum(np.interp(share[:, 0], *self._shares), self._knots[-1] - _NEAR * self.size)
        ends = self._heights(x)
        lengths = np.nan_to_num(ends[:, 1::2] - ends[:, ::2])
        before = np.concatenate([np.zeros((len(x), 1)), lengths.cumsum(axis=1)], axis=1)
        along = unit[:, 1] * before[:, -1]
        last = np.isfinite(ends[:, ::2]).sum(axis=1) - 1  # where there are fewer chords than elsewhere
        chord = np.minimum((along[:, None] >= before[:, 1:]).sum(axis=1), last)
        rows = np.arange(len(x))
        local = (along - before[rows, chord]) / np.maximum(lengths[rows, chord], 1e-300)
        local = np.clip(0.5 * (1 - np.cos(np.pi * local)) if clustered else local, 0, 1)
        return np.stack([x, ends[rows, 2 * chord] + local * lengths[rows, chord]], axis=1)

    def quadrature(self, nodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Place points (n, 2) with weights (n,): Gauss-Legendre on the chords at Gauss-Legendre angles between two knots."""
        at, weights = np.polynomial.legendre.leggauss(nodes)
        angle, half_pi = 0.5 * np.pi * (at + 1), 0.5 * np.pi
        points, shares = [], []
        for low, high in pairwise(self._knots):
            middle, half = 0.5 * (low + high), 0.5 * (high - low)
            x = middle - half * np.cos(angle)
            across = half_pi * weights * half * np.sin(angle)
            ends = self._heights(x)
            for bottom, top in zip(ends[:, ::2].T, ends[:, 1::2].T, strict=True):
                if np.isfinite(bottom).all():
                    y = bottom[:, None] + 0.5 * (at + 1) * (top - bottom)[:, None]
                    points.append(np.stack([np.broadcast_to(x[:, None], y.shape), y], axis=-1).reshape(-1, 2))
                    shares.append((across[:, None] * 0.5 * weights * (top - bottom)[:, None]).ravel())
        return np.concatenate(points), np.concatenate(shares)

    def on(self, part: str, unit: np.ndarray, clustered: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Spread points along the edges of a part; clustered towards the ends of each that is not a full circle."""
        if part not in self.parts:
            raise unknown_name("part of the boundary", part, self.parts)
        edges = [edge for name, edge in self.edges if name == part]
        lengths = np.array([edge.length for edge in edges])
        ends = np.concatenate([[0.0], lengths.cumsum()]) / lengths.sum()
        number = np.minimum((unit[:, :1] >= ends[1:]).sum(axis=1), len(edges) - 1)
        points, normals = np.empty((len(unit), 2)), np.empty((len(unit), 2))
        for n, edge in enumerate(edges):
            here = number == n
            local = (unit[here, 0] - ends[n]) / (ends[n + 1] - ends[n])
            local = 0.5 * (1 - np.cos(np.pi * local)) if clustered and not edge.closed else local
            points[here], normals[here] = edge.at(local), edge.normals(local)
        return points, normals

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Tell which points (n, 2) lie in the closed region."""
        return np.asarray(self._within(points) | (self._distances(points) <= _NEAR * self.size))

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Measure how far points (n, 2) are from the boundary, above 0 inside and below 0 outside, (n,)."""
        return np.asarray(np.where(self._within(points), 1.0, -1.0) * self._distances(points))

    def _distances(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(np.min([edge.distance(points) for _, edge in self.edges], axis=0))

    def _within(self, points: np.ndarray) -> np.ndarray:
        """Tell of which points (n, 2) an odd number of edges is above."""
        with np.errstate(invalid="ignore"):
            above = self._heights(points[:, 0], ordered=False) > points[:, 1:]
        return np.asarray(above.sum(axis=1) % 2 == 1)

    def _heights(self, x: np.ndarray, ordered: bool = True) -> np.ndarray:
        """Find where vertical lines at x (n,) cross edges, (n, pieces) in rising order, NaN behind them."""
        found = np.full((len(x), len(self._pieces) + len(self._pieces) % 2), np.nan)  # in pairs
        for number, (piece, low, high) in enumerate(self._pieces):
            here = (x >= low) & (x < high)
            found[here, number] = piece.height(x[here])
        return np.sort(found, axis=1) if ordered else found

    @cached_property
    def _pieces(self) -> list[tuple[Edge, float, float]]:
        found = []
        for _, edge in self.edges:
            for piece in edge.monotone():
                low, high = sorted(piece.at(np.array([0.0, 1.0]))[:, 0].tolist())
                if high - low > 1e-14 * max(abs(low), abs(high)):  # upright ones are met by no vertical line
                    found.append((piece, low, high))
        return found

    @cached_property
    def _knots(self) -> np.ndarray:
        """List the coordinates x where a piece begins or ends."""
        found = np.unique([end for _, low, high in self._pieces for end in (low, high)])
        return np.asarray(found[np.concatenate([[True], np.diff(found) > _NEAR * self.size])])

    @cached_property
    def _shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Tabulate shares of the area, and the coordinates x that have as much to their left."""
        knots = self._knots
        angle = np.linspace(0, np.pi, _TICKS)  # roots at the ends of arcs are smooth in it
        areas, places, total = [np.zeros(1)], [knots[:1]], 0.0
        for low, high in pairwise(knots):
            middle, half = 0.5 * (low + high), 0.5 * (high - low)
            between = 0.5 * (angle[1:] + angle[:-1])
            ends = self._heights(middle - half * np.cos(between))
            chords = np.nan_to_num(ends[:, 1::2] - ends[:, ::2]).sum(axis=1)
            grown = total + np.cumsum(chords * np.sin(between)) * half * (angle[1] - angle[0])
            areas.append(grown)
            places.append(middle - half * np.cos(angle[1:]))
            total = grown[-1]
        return np.concatenate(areas) / total, np.concatenate(places)

    @cached_property
    def _extremes(self) -> np.ndarray:
        return np.concatenate([piece.at(np.array([0.0, 1.0])) for piece in self._turning()])

    def _turning(self) -> Iterable[Edge]:
        """Cut every edge where it is upright or level."""
        for _, edge in self.edges:
            if isinstance(edge, Arc):
                quarter = Arc(edge.centre, edge.radius, edge.start_rad + math.pi / 2, edge.sweep_rad).monotone()
                yield from (Arc(one.centre, one.radius, one.start_rad - math.pi / 2, one.sweep_rad) for one in quarter)
            yield from edge.monotone()

    @cached_property
    def size(self) -> float:
        """Give the longer side of the bounding box."""
        return float(np.max(self._extremes.max(axis=0) - self._extremes.min(axis=0)))


def polygon(vertices: Sequence[Point], names: Sequence[str] | None = None) -> Outline:
    """Make the polygon through vertices in turn, either way round; sides are called a, b, c, ... from the first vertex on.

    Raises InputError for fewer than three vertices, another number of ``names``, and sides that cross or touch.
    """
    corners = [(float(x), float(y)) for x, y in vertices]
    if len(corners) < 3:
        raise InputError(f"polygon of {len(corners)} vertices: give at least 3")
    called = [_letter(number) for number in range(len(corners))] if names is None else list(names)
    if len(called) != len(corners):
        raise InputError(f"{len(called)} names for {len(corners)} sides of a polygon: give one for each")
    sides = [Segment(a, b) for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)]
    for number, side in enumerate(sides):
        for other in range(number + 1, len(sides)):
            met, next_to = len(np.unique(crossings(side, sides[other]).round(12), axis=0)), other - number
            if met > (next_to in (1, len(sides) - 1)):
                raise InputError(f"sides {called[number]} and {called[other]} of a polygon meet: give vertices in turn")
    if sum(side.area() for side in sides) < 0:
        sides = [side.reversed() for side in sides]
    return Outline(tuple(zip(called, sides, strict=True)))


def circle(centre: Point = (0.0, 0.0), radius: float = 1.0, name: str = "circle") -> Outline:
    """Make a disc with its one part called ``name``."""
    if not 0 < radius < math.inf:
        raise InputError(f"circle of radius {radius}: give more than 0")
    return Outline(((name, Arc((float(centre[0]), float(centre[1])), float(radius))),))


def wafer(diameter: float, notch_depth: float, notch_opening_deg: float = 90.0) -> Outline:
    """Make a wafer about the origin with a V-shaped notch at the bottom; parts "edge" and "notch".

    SEMI M1 has 300, 1.0 (at least) and 90: in mm, but any unit will do. Raises InputError for a notch that reaches the centre.
    """
    radius, half = 0.5 * diameter, math.radians(0.5 * notch_opening_deg)
    if not (0 < notch_depth < radius and 0 < half < math.pi / 2):
        raise InputError(
            f"notch {notch_depth} deep and {notch_opening_deg} degrees wide in a wafer of diameter {diameter}: give a depth "
            "between 0 and the radius, and an angle between 0 and 180"
        )
    tip = notch_depth - radius
    down = 3 * notch_depth
    wedge = [(0.0, tip), (-down * math.tan(half), tip - down), (down * math.tan(half), tip - down)]
    return difference(circle(radius=radius, name="edge"), polygon(wedge, ["notch"] * 3))


def outline_of(region: Region) -> Outline:
    """Give the outline of a region in the plane; raises InputError for others."""
    if isinstance(region, Outline):
        return region
    if isinstance(region, Annulus):
        rings = [("outer", Arc((0.0, 0.0), region.outer))]
        hole = [("inner", Arc((0.0, 0.0), region.inner, 0.0, -2 * math.pi))] if region.inner else []
        return Outline((*rings, *hole))
    if isinstance(region, LShape):
        return polygon([(0, 0), (0, 1), (-1, 1), (-1, -1), (1, -1), (1, 0)])
    if isinstance(region, Box) and len(region.lower) == 2:
        (a, c), (b, d) = region.lower, region.upper
        first, second = region.axes
        names = [f"{second}=min", f"{first}=max", f"{second}=max", f"{first}=min"]
        return polygon([(a, c), (b, c), (b, d), (a, d)], names)
    raise InputError(f"no outline of a {type(region).__name__}: give a region of the plane, as polygon(...) or disc()")


def union(one: Region, other: Region) -> Outline:
    """Join two regions; parts of the second whose names the first has are numbered."""
    return _combined(one, other, lambda a, b: a | b)


def intersection(one: Region, other: Region) -> Outline:
    """Keep what is in both regions; parts as of ``union``."""
    return _combined(one, other, lambda a, b: a & b)


def difference(one: Region, other: Region) -> Outline:
    """Take a region out of another; parts as of ``union``."""
    return _combined(one, other, lambda a, b: a & ~b)


def _combined(one: Region, other: Region, keeps: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Outline:
    """Keep the pieces of both outlines that have the result on one side alone, with that side on their left."""
    first, second = outline_of(one), _renamed(outline_of(other), outline_of(one).parts)
    step, found, middles = 1e-7 * max(first.size, second.size), list[tuple[str, Edge]](), list[np.ndarray]()
    for mine, its in ((first, second), (second, first)):
        for name, edge in mine.edges:
            for piece in _split(edge, its.edges):
                middle, out = piece.at(np.array([0.5])), piece.normals(np.array([0.5]))
                left, right = (
                    bool(keeps(first._within(place), second._within(place))[0])
                    for place in (middle - step * out, middle + step * out)
                )
                twice = any(np.linalg.norm(middle - known) < step for known in middles)
                if left != right and not twice:
                    found.append((name, piece if left else piece.reversed()))
                    middles.append(middle)
    if not found:
        raise InputError("nothing is left of two regions that do not overlap: give ones that do")
    return Outline(tuple(found))


def _renamed(outline: Outline, taken: Sequence[str]) -> Outline:
    names: dict[str, str] = {}
    for part in outline.parts:
        numbered = (f"{part} {number}" for number in count(2))
        names[part] = next(
            name for name in (part, *(next(numbered) for _ in range(len(taken) + 1))) if name not in taken
        )
    return Outline(tuple((names[name], edge) for name, edge in outline.edges))


def _split(edge: Edge, others: Iterable[tuple[str, Edge]]) -> list[Edge]:
    """Cut an edge where others meet it."""
    met = [edge.share_of(points) for points in (crossings(edge, other) for _, other in others) if len(points)]
    inner = np.clip(np.concatenate(met), 0, 1) if met else np.empty(0)
    shares = np.unique(np.concatenate([[0.0, 1.0], inner]))
    shares = shares[np.concatenate([[True], np.diff(shares) > 1e-10])]
    shares[-1] = 1.0
    return [edge if (a, b) == (0.0, 1.0) else edge.cut(a, b) for a, b in pairwise(shares.tolist())]


def _direction(segment: Segment) -> float:
    return math.atan2(segment.end[1] - segment.start[1], segment.end[0] - segment.start[0])


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"side {number + 1}"
