"""The areas of a wafer that numbers are of: the fixed quality area, its sites, and sectors along the edge."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.wafer.kernels import sector_labels, site_labels
from cpikan.wafer.outline import Wafer

FloatArray = NDArray[np.float64]
Labels = NDArray[np.int32]

_MOST_SITES = 100_000


class Regions(Protocol):
    """Regions of a wafer that do not overlap: ``centres`` (regions, 2) in mm, and the region of each pixel."""

    @property
    def wafer(self) -> Wafer: ...

    @property
    def centres(self) -> FloatArray: ...

    def label(self, start: int, labels: Labels) -> None:
        """Write the number of the region of each pixel of rows from ``start``, -1 where it is in none."""


@dataclass(frozen=True)
class Site:
    """A site: its place in the grid, its centre in mm (x, y) and whether all of it lies in the fixed quality area."""

    column: int
    row: int
    x_mm: float
    y_mm: float
    full: bool


@dataclass(frozen=True)
class SiteGrid:
    """All sites that share a point with the fixed quality area: together they cover it.

    ``size_mm`` (width, height); site (0, 0) has its centre ``offset_mm`` (x, y) from the wafer's; ``turn_deg`` turns the axes
    of the grid counter-clockwise from those of the map. A pixel belongs to the site that its centre lies in, the left and the
    lower border included.
    """

    wafer: Wafer
    radius_mm: float
    size_mm: tuple[float, float]
    offset_mm: tuple[float, float] = (0.0, 0.0)
    turn_deg: float = 0.0
    sites: tuple[Site, ...] = field(init=False)

    def __post_init__(self) -> None:
        width, height = self.size_mm
        if math.hypot(width, height) > 2 * self.radius_mm:
            raise InputError(
                f"a site of {width:g} x {height:g} mm does not fit into the fixed quality area of {2 * self.radius_mm:g} mm "
                "diameter: give smaller sites, or check the diameter"
            )
        if math.pi * self.radius_mm**2 / (width * height) > _MOST_SITES:
            raise InputError(
                f"sites of {width:g} x {height:g} mm are more than {_MOST_SITES}: give larger sites, such as 26x8mm"
            )
        i, j = (self._span(axis) for axis in (0, 1))
        sites = (self._site(column, row) for row in range(j[0], j[1] + 1) for column in range(i[0], i[1] + 1))
        object.__setattr__(self, "sites", tuple(site for site in sites if site is not None))

    @property
    def centres(self) -> FloatArray:
        return np.array([self.on_map(site.x_mm, site.y_mm) for site in self.sites])

    def on_map(self, x_mm: float, y_mm: float) -> tuple[float, float]:
        """Turn a place along the axes of the sites into one along those of the map, (x, y) in mm."""
        cosine, sine = self._turn
        return x_mm * cosine - y_mm * sine, x_mm * sine + y_mm * cosine

    @cached_property
    def _table(self) -> Labels:
        """Number the sites by row and column, from the lowest left one."""
        (left, right), (bottom, top) = self._span(0), self._span(1)
        table = np.full((top - bottom + 1, right - left + 1), -1, np.int32)
        for number, site in enumerate(self.sites):
            table[site.row - bottom, site.column - left] = number
        return table

    def label(self, start: int, labels: Labels) -> None:
        left, bottom = self._span(0)[0], self._span(1)[0]
        width, height = self.size_mm
        corner = self.offset_mm[0] + (left - 0.5) * width, self.offset_mm[1] + (bottom - 0.5) * height
        grid = np.array([width, height, *corner, self.radius_mm**2])
        site_labels(start, self.wafer.frame, np.array(self._turn), grid, self._table, labels)

    @property
    def _turn(self) -> tuple[float, float]:
        exact = {0.0: (1.0, 0.0), 90.0: (0.0, 1.0), 180.0: (-1.0, 0.0), 270.0: (0.0, -1.0)}
        angle = self.turn_deg % 360
        return exact.get(angle, (math.cos(math.radians(angle)), math.sin(math.radians(angle))))

    def _span(self, axis: int) -> tuple[int, int]:
        """Find the first and the last column (or row) of sites that reach into the area."""
        size, offset = self.size_mm[axis], self.offset_mm[axis]
        return (
            math.floor((-self.radius_mm - offset) / size + 0.5),
            math.ceil((self.radius_mm - offset) / size - 0.5),
        )

    def _site(self, column: int, row: int) -> Site | None:
        width, height = self.size_mm
        x, y = self.offset_mm[0] + column * width, self.offset_mm[1] + row * height
        nearest = math.hypot(max(abs(x) - width / 2, 0), max(abs(y) - height / 2, 0))
        farthest = math.hypot(abs(x) + width / 2, abs(y) + height / 2)
        return None if nearest > self.radius_mm else Site(column, row, x, y, farthest <= self.radius_mm)


@dataclass(frozen=True)
class Sectors:
    """Equal sectors of the annulus between two radii in mm, counter-clockwise; the first begins at +x."""

    wafer: Wafer
    inner_mm: float
    outer_mm: float
    count: int

    @property
    def centres(self) -> FloatArray:
        turns, radius = np.deg2rad(self.angles_deg), (self.inner_mm + self.outer_mm) / 2
        return radius * np.stack([np.cos(turns), np.sin(turns)], 1)

    @property
    def angles_deg(self) -> FloatArray:
        """List the polar angle of the middle of each sector."""
        return np.asarray((np.arange(self.count) + 0.5) * (360 / self.count), np.float64)

    def label(self, start: int, labels: Labels) -> None:
        turns = np.arange(self.count + 1) * (2 * math.pi / self.count)
        borders = np.stack([np.cos(turns), np.sin(turns)], 1)
        sector_labels(start, self.wafer.frame, self.inner_mm, self.outer_mm, borders, labels)
