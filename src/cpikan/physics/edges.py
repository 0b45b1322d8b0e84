"""Edges: straight and round pieces of an outline in the plane, with the region on their left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

Point = tuple[float, float]


class Edge(Protocol):
    """A directed piece of an outline; shares run from 0 at its start to 1 at its end."""

    @property
    def length(self) -> float: ...

    @property
    def closed(self) -> bool:
        """Tell whether the edge is an outline of its own."""
        ...

    def at(self, share: np.ndarray) -> np.ndarray:
        """Place points (n, 2) at shares (n,)."""
        ...

    def normals(self, share: np.ndarray) -> np.ndarray:
        """Give the unit normals (n, 2) there, out of the region."""
        ...

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Measure the distance of points (n, 2) from the edge, (n,)."""
        ...

    def share_of(self, points: np.ndarray) -> np.ndarray:
        """Find the shares (n,) of points on the edge."""
        ...

    def cut(self, start: float, end: float) -> Edge:
        """Keep the part between two shares."""
        ...

    def reversed(self) -> Edge:
        """Turn the edge round: the region is on its other side."""
        ...

    def monotone(self) -> Sequence[Edge]:
        """Cut the edge where it is upright, so that no vertical line meets a piece twice."""
        ...

    def height(self, x: np.ndarray) -> np.ndarray:
        """Find the y (n,) of a piece that is ``monotone`` at coordinates x (n,) between its ends."""
        ...

    def area(self) -> float:
        """Give the edge's share of the area that it goes round, half the integral of x dy - y dx."""
        ...


@dataclass(frozen=True)
class Segment:
    """The straight edge between two points."""

    start: Point
    end: Point
    closed = False

    @property
    def length(self) -> float:
        """Give the distance of the two points."""
        return math.dist(self.start, self.end)

    def at(self, share: np.ndarray) -> np.ndarray:
        """Place points on the straight line."""
        low, high = np.asarray(self.start), np.asarray(self.end)
        return np.asarray(low + share[:, None] * (high - low))

    def normals(self, share: np.ndarray) -> np.ndarray:
        """Give the normal to the right."""
        along = (np.asarray(self.end) - self.start) / self.length
        return np.tile([along[1], -along[0]], (len(share), 1))

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Measure from the nearest point between the ends."""
        share = np.clip(self.share_of(points), 0, 1)
        return np.asarray(np.linalg.norm(points - self.at(share), axis=1))

    def share_of(self, points: np.ndarray) -> np.ndarray:
        """Project on the line."""
        along = np.asarray(self.end) - self.start
        return np.asarray((points - self.start) @ along / (along @ along))

    def cut(self, start: float, end: float) -> Segment:
        """Keep a shorter one."""
        a, b = self.at(np.array([start, end]))
        return Segment((float(a[0]), float(a[1])), (float(b[0]), float(b[1])))

    def reversed(self) -> Segment:
        """Exchange the ends."""
        return Segment(self.end, self.start)

    def monotone(self) -> tuple[Segment, ...]:
        """Give the segment itself."""
        return (self,)

    def height(self, x: np.ndarray) -> np.ndarray:
        """Interpolate."""
        (a, low), (b, high) = self.start, self.end
        return np.asarray(low + (x - a) / (b - a) * (high - low))

    def area(self) -> float:
        """Give half the cross product of the ends."""
        return 0.5 * (self.start[0] * self.end[1] - self.end[0] * self.start[1])


@dataclass(frozen=True)
class Arc:
    """An arc from the angle ``start_rad`` through ``sweep_rad``: above 0 it is anticlockwise, with the region inside."""

    centre: Point
    radius: float
    start_rad: float = 0.0
    sweep_rad: float = 2 * math.pi

    @property
    def length(self) -> float:
        """Give radius times angle."""
        return self.radius * abs(self.sweep_rad)

    @property
    def closed(self) -> bool:
        """Tell whether it is a full circle."""
        return abs(self.sweep_rad) >= 2 * math.pi * (1 - 1e-14)

    def at(self, share: np.ndarray) -> np.ndarray:
        """Place points on the circle."""
        return np.asarray(self.centre + self.radius * self._outwards(share))

    def normals(self, share: np.ndarray) -> np.ndarray:
        """Give the direction from the centre, or to it where the region is outside."""
        return np.asarray(math.copysign(1.0, self.sweep_rad) * self._outwards(share))

    def _outwards(self, share: np.ndarray) -> np.ndarray:
        angle = self.start_rad + share * self.sweep_rad
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Measure from the circle, or from the nearer end."""
        ends = self.at(np.array([0.0, 1.0]))
        apart = np.linalg.norm(points[:, None] - ends, axis=2).min(axis=1)
        share, radius = self.share_of(points), np.linalg.norm(points - np.asarray(self.centre), axis=1)
        return np.asarray(np.where((share >= 0) & (share <= 1), np.abs(radius - self.radius), apart))

    def share_of(self, points: np.ndarray) -> np.ndarray:
        """Compare angles; those just before the start are below 0."""
        angle = np.arctan2(points[:, 1] - self.centre[1], points[:, 0] - self.centre[0]) - self.start_rad
        turn = np.mod(angle if self.sweep_rad > 0 else -angle, 2 * math.pi)
        near = 2 * math.pi - 1e-9
        return np.asarray(np.where(turn > near, turn - 2 * math.pi, turn) / abs(self.sweep_rad))

    def cut(self, start: float, end: float) -> Arc:
        """Keep a shorter one."""
        first = self.start_rad + start * self.sweep_rad
        return Arc(self.centre, self.radius, first, (end - start) * self.sweep_rad)

    def reversed(self) -> Arc:
        """Go back from the end."""
        return Arc(self.centre, self.radius, self.start_rad + self.sweep_rad, -self.sweep_rad)

    def monotone(self) -> tuple[Arc, ...]:
        """Cut at multiples of pi."""
        ends = sorted((self.start_rad, self.start_rad + self.sweep_rad))
        turns = [math.pi * k for k in range(math.ceil(ends[0] / math.pi), math.floor(ends[1] / math.pi) + 1)]
        shares = sorted({0.0, 1.0, *((turn - self.start_rad) / self.sweep_rad for turn in turns)})
        return tuple(self.cut(a, b) for a, b in pairwise(shares) if (b - a) * self.length > 1e-14 * self.radius)

    def height(self, x: np.ndarray) -> np.ndarray:
        """Take the upper or the lower half."""
        side = math.copysign(1.0, math.sin(self.start_rad + 0.5 * self.sweep_rad))
        across = np.clip(self.radius**2 - (x - self.centre[0]) ** 2, 0, None)
        return np.asarray(self.centre[1] + side * np.sqrt(across))

    def area(self) -> float:
        """Integrate round the arc."""
        first, last = self.start_rad, self.start_rad + self.sweep_rad
        turned = self.centre[0] * (math.sin(last) - math.sin(first)) - self.centre[1] * (
            math.cos(last) - math.cos(first)
        )
        return 0.5 * (self.radius**2 * self.sweep_rad + self.radius * turned)


def crossings(one: Edge, other: Edge) -> np.ndarray:
    """Find where two edges meet, (n, 2); of pieces that lie on each other the ends."""
    found = [edge.at(np.array([0.0, 1.0])) for edge in (one, other)]
    if isinstance(one, Segment) and isinstance(other, Segment):
        found.append(_of_lines(one, other))
    elif isinstance(one, Arc) and isinstance(other, Arc):
        found.append(_of_circles(one, other))
    else:
        line, arc = (one, other) if isinstance(one, Segment) else (other, one)
        assert isinstance(line, Segment)
        assert isinstance(arc, Arc)
        found.append(_of_line_and_circle(line, arc))
    points, size = np.concatenate(found), max(one.length, other.length)
    on = (one.distance(points) < 1e-11 * size) & (other.distance(points) < 1e-11 * size)
    return points[on]


def _of_lines(one: Segment, other: Segment) -> np.ndarray:
    a, b = np.asarray(one.end) - one.start, np.asarray(other.end) - other.start
    across = a[0] * b[1] - a[1] * b[0]
    if abs(across) <= 1e-14 * one.length * other.length:
        return np.empty((0, 2))
    gap = np.asarray(other.start) - one.start
    return one.at(np.array([(gap[0] * b[1] - gap[1] * b[0]) / across]))


def _of_line_and_circle(line: Segment, arc: Arc) -> np.ndarray:
    along = (np.asarray(line.end) - line.start) / line.length
    to = np.asarray(arc.centre) - line.start
    middle, off = to @ along, to[0] * along[1] - to[1] * along[0]
    half = math.sqrt(max(0.0, arc.radius**2 - off**2))
    return line.at(np.array([middle - half, middle + half]) / line.length)


def _of_circles(one: Arc, other: Arc) -> np.ndarray:
    to = np.asarray(other.centre) - one.centre
    apart = math.hypot(*to)
    if apart == 0.0:
        return np.empty((0, 2))
    along = (apart**2 + one.radius**2 - other.radius**2) / (2 * apart)
    half = math.sqrt(max(0.0, one.radius**2 - along**2))
    axis, across = to / apart, np.array([-to[1], to[0]]) / apart
    return np.asarray(one.centre) + along * axis + half * np.array([[1.0], [-1.0]]) * across
