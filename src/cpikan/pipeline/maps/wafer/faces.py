"""The surfaces of a wafer, read together band by band: front face, and with a second map thickness and median surface."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, MapRows, check_heights
from cpikan.registration.affine import Affine, ResampledMap
from cpikan.streaming.engine import Band
from cpikan.streaming.events import Events, Progress
from cpikan.units import PixelUm, pixel_pair
from cpikan.wafer.outline import Wafer, find_wafer

FloatArray = NDArray[np.float64]
Surfaces = dict[str, FloatArray]

FRONT, THICKNESS, MEDIAN = "front", "thickness", "median"
_BLOCK_PIXELS = 1 << 18  # a band and its labels stay in the cache
_SAME = 1e-3  # relative, of pixel sizes
_TURN_PX = 1.5  # a turn that moves the edge by less is within the error of two notches
_ODD = 10.0  # a thickness that varies by more times the bend of the median surface is none
_SHIFT_PX = 0.1  # a rest of a shift within the error of two outlines


class Faces:
    """Bands of the surfaces of a wafer: ``front`` alone, or with ``thickness`` and ``median``, heights in nm, float64.

    ``sign`` is what a second map of heights counts in thickness = front + sign * second, 0 where it is the thickness.
    """

    def __init__(
        self, front: HeightMap, second: HeightMap | None = None, sign: int = 0, progress: bool | Events = False
    ) -> None:
        self.front, self.second, self._sign, self._progress = front, second, sign, progress
        self.names = (FRONT,) if second is None else (FRONT, THICKNESS, MEDIAN)
        self._checked = False

    def fronts(self) -> Iterator[tuple[int, FloatArray]]:
        """Yield first row and heights of bands of the front alone."""
        rows = MapRows(self.front, block_pixels=_BLOCK_PIXELS)
        with Progress("wafer", *rows.shape, self._progress) as bar:
            for band in rows.bands:
                yield band.start, self._read(rows, band)
                bar.advance(band.rows)
        self._checked = True

    def surfaces(self) -> Iterator[tuple[int, Surfaces]]:
        """Yield first row and all surfaces of bands."""
        if self.second is None:
            yield from ((start, {FRONT: heights}) for start, heights in self.fronts())
            return
        rows = MapRows(self.second, block_pixels=_BLOCK_PIXELS)
        for (start, heights), band in zip(self.fronts(), rows.bands, strict=True):
            other = self._read(rows, band)
            thickness = heights + self._sign * other if self._sign else other
            yield start, {FRONT: heights, THICKNESS: thickness, MEDIAN: heights - thickness / 2}

    def doubts(self, thickness_nm: float, median_nm: float) -> list[str]:
        """Doubt the axis of the back where the thickness varies far more than the median surface bends.

        By the other axis the one would be twice the other's half: what bends a wafer is taken for its thickness.
        """
        if not self._sign or not thickness_nm > _ODD * median_nm:
            return []
        other = "outward" if self._sign < 0 else "front"
        return [
            f"the thickness varies by {thickness_nm / 1e3:.4g} um and the median surface bends by {median_nm / 1e3:.4g} um, as "
            f"where heights of the back count the other way: back axis {other} takes them so"
        ]

    def _read(self, rows: MapRows, band: Band) -> FloatArray:
        heights = rows.read("height_nm", band)
        assert heights is not None
        if not self._checked:
            check_heights(heights, str(rows.map.path))
        return np.ascontiguousarray(heights, np.float64)


def thickness_map(front: HeightMap, thickness: HeightMap) -> HeightMap:
    """Take a map of the thickness as it is; InputError where its pixels are not those of the front."""
    one, two = pixel_pair(front.pixel_um), pixel_pair(thickness.pixel_um)
    if front.shape != thickness.shape:
        raise InputError(
            f"{thickness.path} is {thickness.shape[0]} x {thickness.shape[1]}, {front.path} {front.shape[0]} x "
            f"{front.shape[1]} (rows x columns): give a thickness on the pixels of the front, cut or resample one of them"
        )
    if one and two and max(abs(a / b - 1) for a, b in zip(one, two, strict=True)) > _SAME:
        raise InputError(f"{thickness.path} has pixels of another size than {front.path}: resample one of them")
    return thickness


def back_map(back: HeightMap, front: Wafer, shape: tuple[int, int], pixel_um: PixelUm) -> tuple[HeightMap, list[str]]:
    """Lay a map of the back, seen from behind, onto the pixels of the front by edge and notch; what to know beside.

    It is mirrored left to right. Shifts and turns within the error of outline and notch are rounded to whole pixels and to
    quarter turns, so that pixels keep their values.
    """
    own = pixel_pair(back.pixel_um) or pixel_pair(pixel_um)
    assert own is not None
    pixel_mm = own[0] / 1e3, own[1] / 1e3
    rows = MapRows(back, block_pixels=_BLOCK_PIXELS)

    def sweep() -> Iterator[tuple[int, FloatArray]]:
        for band in rows.bands:
            heights = rows.read("height_nm", band)
            assert heights is not None
            yield band.start, np.ascontiguousarray(heights, np.float64)

    wafer = find_wafer(sweep, back.shape, pixel_mm, 2 * front.radius_mm)
    turn, notes = _turn(front, wafer)
    scale = pixel_mm[1] / front.pixel_mm[1]
    if abs(pixel_mm[0] / pixel_mm[1] * front.pixel_mm[1] / front.pixel_mm[0] - 1) > _SAME:
        raise InputError(f"{back.path} has pixels of another form than the front map: resample one of them")
    scale = 1.0 if abs(scale - 1) < _SAME else scale
    affine = Affine.about(
        (wafer.y, wafer.x), (front.y, front.x), turn, scale, front.pixel_mm[0] / front.pixel_mm[1], mirrored=True
    )
    if scale == 1 and turn % 90 == 0:
        affine = _rounded(affine)
    laid = ResampledMap(back.arrays["height_nm"], affine, shape)
    return replace(back, arrays={"height_nm": laid}), notes


def _turn(front: Wafer, back: Wafer) -> tuple[float, list[str]]:
    """Find the angle that brings the notch of the mirrored back onto that of the front."""
    if front.notch_deg is None or back.notch_deg is None:
        return 0.0, ["without a notch on both maps the back is laid onto the front as it lies, mirrored left to right"]
    turn = (front.notch_deg - (180 - back.notch_deg)) % 360
    quarter = round(turn / 90) * 90.0
    away_px = math.radians(abs(turn - quarter)) * front.radius_mm / max(front.pixel_mm)
    return (quarter % 360 if away_px < _TURN_PX else turn), []


def _rounded(affine: Affine) -> Affine:
    """Round a shift that is a whole one within its error."""
    matrix = affine.matrix.copy()
    near = np.round(matrix[:, 2])
    matrix[:, 2] = np.where(np.abs(matrix[:, 2] - near) < _SHIFT_PX, near, matrix[:, 2])
    return Affine(matrix)
