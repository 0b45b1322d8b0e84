"""Wafer numbers of stored maps, streamed: of the front face, and of the thickness where a second map gives it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.maps.wafer.faces import FRONT, MEDIAN, THICKNESS, Faces, Surfaces, back_map, thickness_map
from cpikan.pipeline.maps.wafer.numbers import (
    FREE,
    SITE,
    THREE,
    WHOLE,
    EdgeNumbers,
    FlatSites,
    ShapeNumbers,
    WaferNumbers,
)
from cpikan.pipeline.maps.wafer.settings import WaferSettings
from cpikan.streaming.events import Events
from cpikan.units import PixelUm, as_json, parse_pixel_um, pixel_pair
from cpikan.wafer.areas import Sectors, SiteGrid
from cpikan.wafer.flatness import ZERO, PlaneFits, PlaneRanges, PointHeights, bow_nm, plane_through, support_places
from cpikan.wafer.high_pass import HighPass
from cpikan.wafer.near_edge import NearEdge
from cpikan.wafer.outline import find_wafer
from cpikan.wafer.thresholds import WINDOWS_MM, ThresholdHeights, Windows

FloatArray = NDArray[np.float64]

_STANDARD_MM = (50.8, 76.2, 100.0, 125.0, 150.0, 200.0, 300.0, 450.0)  # SEMI M1
_AGREES = 0.005  # a measured diameter and its nominal one
_UPRIGHT_DEG = 1.0


def wafer_numbers(
    front: str | Path | HeightMap,
    settings: WaferSettings | None = None,
    *,
    back: str | Path | HeightMap | None = None,
    thickness: str | Path | HeightMap | None = None,
    progress: bool | Events = False,
) -> WaferNumbers:
    """Compute all wafer numbers of the map of a front face, in a few sweeps of bands.

    With a map of the ``back`` or of the ``thickness`` those of the thickness and of the median surface too. Raises
    InputError where the map does not say its pixel size and the settings neither, where no wafer is found, for sites that do
    not fit, and for a second map that cannot be laid onto the first.
    """
    settings = settings or WaferSettings()
    if back is not None and thickness is not None:
        raise InputError("back and thickness both say the thickness: give one of them")
    found = _Job(_opened(front), settings, progress)
    if back is not None:
        found.add_back(_opened(back))
    elif thickness is not None:
        found.add_thickness(_opened(thickness))
    return found.run()


def _opened(given: str | Path | HeightMap) -> HeightMap:
    return given if isinstance(given, HeightMap) else open_height_map(given)


class _Job:
    """One computation: the wafer on the front map, a second map, and what to warn of."""

    def __init__(self, front: HeightMap, settings: WaferSettings, progress: bool | Events) -> None:
        self._front, self._settings, self._progress = front, settings, progress
        self._pixel_um = _pixel_um(front, settings)
        pair = pixel_pair(self._pixel_um)
        assert pair is not None
        self._faces = Faces(front, progress=progress)
        self._wafer = find_wafer(self._faces.fronts, front.shape, (pair[0] / 1e3, pair[1] / 1e3), settings.diameter_mm)
        self._warnings: list[str] = list(front.notes)
        self._facts: dict[str, Any] = {"flatness_of": FRONT, "back": None, "thickness": None}

    def add_back(self, back: HeightMap) -> None:
        """Lay a map of the back onto the front."""
        laid, notes = back_map(back, self._wafer, self._front.shape, self._pixel_um)
        sign = -1 if self._settings.back_axis == "front" else 1
        self._faces = Faces(self._front, laid, sign, self._progress)
        self._warnings += [*back.notes, *notes]
        self._facts |= {"flatness_of": THICKNESS, "back": str(back.path)}

    def add_thickness(self, thickness: HeightMap) -> None:
        """Take a map of the thickness."""
        self._faces = Faces(self._front, thickness_map(self._front, thickness), 0, self._progress)
        self._warnings += thickness.notes
        self._facts |= {"flatness_of": THICKNESS, "thickness": str(thickness.path)}

    def run(self) -> WaferNumbers:
        """Sweep the surfaces for planes, then for the distances from them, then the front for nanotopography."""
        wafer, settings = self._wafer, self._settings
        diameter = self._diameter()
        radius = diameter / 2 - settings.edge_mm
        if radius <= 0:
            raise InputError(
                f"an edge exclusion of {settings.edge_mm:g} mm leaves nothing of a wafer of {diameter:g} mm: give less"
            )
        turn = self._turn()
        grid = SiteGrid(wafer, radius, settings.site_mm, settings.offset_mm, turn)
        sectors = Sectors(wafer, max(radius - settings.sector_mm, 0.0), radius, settings.sectors)
        flat = self._facts["flatness_of"]
        first = _Sums(self._faces, flat, grid, sectors, diameter / 2)
        self._each(first.add, grid, sectors)
        second = _Ranges(first)
        self._each(second.add, grid, sectors)
        self._warnings += self._faces.doubts(*(second.bend_nm(name) for name in (THICKNESS, MEDIAN)))
        heights = self._threshold_heights(first.high_pass, radius)
        facts = {
            "diameter_mm": diameter,
            "diameter_measured_mm": 2 * wafer.radius_mm if wafer.seen else None,
            "edge_mm": settings.edge_mm,
            "site_mm": list(settings.site_mm),
            "site_offset_mm": list(settings.offset_mm),
            "site_axes_deg": turn,
            "pixel_um": as_json(self._pixel_um),
            "pixels": int(first.sites[flat].pixels.sum()),
            **self._facts,
            "path": str(self._front.path),
        }
        numbers = second.flat_sites(), second.edge(), second.shape()
        return WaferNumbers(wafer, grid, sectors, *numbers, heights, tuple(self._warnings), facts)

    def _each(self, add: Callable[..., None], grid: SiteGrid, sectors: Sectors) -> None:
        """Give every band with the sites and the sectors of its pixels to ``add``."""
        for start, surfaces in self._faces.surfaces():
            labels = np.empty((2, *surfaces[FRONT].shape), np.int32)
            grid.label(start, labels[0])
            sectors.label(start, labels[1])
            add(start, surfaces, labels)

    def _threshold_heights(self, high_pass: HighPass, radius_mm: float) -> tuple[ThresholdHeights, ...]:
        """Filter the front face and find peak to valley of all windows, in two sweeps."""
        for start, heights in self._faces.fronts():
            high_pass.gather(start, heights)
        windows = [Windows(self._wafer, radius_mm, size, self._front.shape) for size in WINDOWS_MM]
        for start, heights in self._faces.fronts():
            filtered = high_pass.rows(start, heights)
            for one in windows:
                one.add(start, filtered)
        return tuple(one.heights() for one in windows)

    def _diameter(self) -> float:
        measured, given = 2 * self._wafer.radius_mm, self._settings.diameter_mm
        if given is None:
            near = min(_STANDARD_MM, key=lambda size: abs(size - measured))
            return near if abs(near - measured) <= _AGREES * near else measured
        if not self._wafer.seen:
            self._warnings.append(
                "the map shows no wafer edge: the centre is that of the box of its valid pixels, and no notch is seen"
            )
        elif abs(measured - given) > _AGREES * given:
            self._warnings.append(
                f"the outline of the valid pixels measures {measured:.6g} mm, the diameter said is {given:.6g} mm: the map "
                "does not end at the edge of the wafer, or the pixel size is wrong"
            )
        return given

    def _turn(self) -> float:
        """Find the angle of the axes of the sites, and warn where the notch lies somewhere else than they say."""
        notch, axes = self._wafer.notch_deg, self._settings.axes
        if notch is None:
            if self._wafer.seen:
                self._warnings.append("no notch is seen at the edge: notch_deg is null")
            if axes == "notch":
                self._warnings.append("without a notch the sites lie along rows and columns of the map")
            return 0.0
        away = (notch - 270 + 180) % 360 - 180
        if axes == "notch":
            return away % 360
        if abs(away) > _UPRIGHT_DEG:
            self._warnings.append(
                f"the notch lies at {notch:.2f} deg, not at the bottom (270), and the sites lie along rows and columns: axes "
                "notch turns them"
            )
        return 0.0


class _Sums:
    """The first sweep: planes of sites and sectors, heights at points, profiles of the edge."""

    def __init__(self, faces: Faces, flat: str, grid: SiteGrid, sectors: Sectors, radius_mm: float) -> None:
        wafer, names = grid.wafer, faces.names
        self.flat, self.grid, self.areas = flat, grid, sectors
        self.places = support_places(wafer, radius_mm)
        self.sites = {name: PlaneFits(grid) for name in names}
        self.supports = {name: PointHeights(wafer, self.places) for name in names}
        self.sectors = PlaneFits(sectors)
        self.near_edge = NearEdge(wafer, radius_mm, sectors.count)
        self.middles = PointHeights(wafer, grid.centres)
        self.high_pass = HighPass(wafer, grid.radius_mm, faces.front.shape)

    def add(self, start: int, surfaces: Surfaces, labels: NDArray[np.int32]) -> None:
        for name, heights in surfaces.items():
            self.sites[name].add(start, heights, labels[0])
            self.supports[name].add(start, heights)
        self.sectors.add(start, surfaces[self.flat], labels[1])
        self.middles.add(start, surfaces[self.flat])
        self.near_edge.add(start, surfaces[FRONT])
        self.high_pass.sample(start, surfaces[FRONT])


class _Ranges:
    """The second sweep: distances from the planes of the first."""

    def __init__(self, first: _Sums) -> None:
        self._first = first
        self._points = {name: one.solve() for name, one in first.supports.items()}
        self._whole = {name: one.whole() for name, one in first.sites.items()}
        self._three = {name: plane_through(first.places[1:], one[1:]) for name, one in self._points.items()}
        self._sites = {name: PlaneRanges(first.grid, self._planes(name)) for name in first.sites}
        self._sectors = PlaneRanges(first.areas, first.sectors.planes()[:, None])

    def _planes(self, name: str) -> FloatArray:
        own = self._first.sites[name].planes()
        planes = {FREE: ZERO, SITE: own, WHOLE: self._whole[name], THREE: self._three[name]}
        return np.stack([np.broadcast_to(planes[k], own.shape) for k in sorted(planes)], 1)

    def add(self, start: int, surfaces: Surfaces, labels: NDArray[np.int32]) -> None:
        for name, heights in surfaces.items():
            self._sites[name].add(start, heights, labels[0])
        self._sectors.add(start, surfaces[self._first.flat], labels[1])

    def flat_sites(self) -> FlatSites:
        first, flat = self._first, self._first.flat
        middle, whole = first.middles.solve(), self._whole[flat]
        above = middle - (whole[0] + first.grid.centres @ whole[1:])
        spreads = {plane: self._sites[flat].of(plane) for plane in (FREE, SITE, WHOLE, THREE)}
        return FlatSites(spreads, {FREE: middle, WHOLE: above}, first.sites[flat].pixels, flat == THICKNESS)

    def bend_nm(self, name: str) -> float:
        """Give the range of a surface about its plane, NaN where there is none."""
        if name not in self._sites:
            return math.nan
        low, high = self._sites[name].of(WHOLE).whole()
        return high - low

    def edge(self) -> EdgeNumbers:
        near = self._first.near_edge
        return EdgeNumbers(self._sectors.of(0), near.roll_off_nm(), near.curvature_nm_per_mm2())

    def shape(self) -> ShapeNumbers:
        name = MEDIAN if MEDIAN in self._sites else FRONT
        places, points = self._first.places, self._points[name]
        best, three = (self._sites[name].of(plane).whole() for plane in (WHOLE, THREE))
        front = self._sites[FRONT].of(WHOLE).whole()
        bow, bow_best = (bow_nm(places, points, planes[name]) for planes in (self._three, self._whole))
        return ShapeNumbers(name, bow, bow_best, best[1] - best[0], three[1] - three[0], front[1] - front[0])


def _pixel_um(height_map: HeightMap, settings: WaferSettings) -> PixelUm:
    found = height_map.pixel_um if settings.pixel_size is None else parse_pixel_um(settings.pixel_size)
    if found is None:
        raise InputError(
            f"{height_map.path} does not say the size of a pixel: give the pixel size (--pixel-size), such as '43 um'"
        )
    return found
