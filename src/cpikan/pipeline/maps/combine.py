"""Work on stored maps: subtract, average, stitch, register, crop, mask, fill, resample; read when it is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import WHOLE, InputError, check_type
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.psi.model.flags import Flag
from cpikan.registration.affine import Affine, ResampledMap
from cpikan.registration.derived import Between, Difference, Filled, Grown, Holes, Mean, Window
from cpikan.registration.mosaic import Mosaic, Placement, place_maps
from cpikan.registration.similarity import Similarity, find_similarity
from cpikan.surface.apertures.aperture import Aperture
from cpikan.units import PixelUm, as_json, pixel_pair

_SAME = 0.01  # relative, of pixel sizes
_MOST_OFF = 32


def subtract(first: HeightMap, second: HeightMap) -> HeightMap:
    """Give first - second, NaN where either is; InputError where their pixels are not the same."""
    _check_alike([first, second])
    return _derived(first, f"{first.path.name} - {second.path.name}", Difference(first.height_nm, second.height_nm))


def average(maps: Sequence[HeightMap], fewest: int = 1) -> HeightMap:
    """Give the mean at each pixel of the maps that are valid there, where these are at least ``fewest``."""
    _check_alike(maps)
    if not 1 <= fewest <= len(maps):
        raise InputError(f"fewest {fewest} of {len(maps)} maps: give 1 to {len(maps)}")
    return _derived(maps[0], f"mean of {len(maps)}", Mean([one.height_nm for one in maps], fewest))


def crop(source: HeightMap, left: int, top: int, right: int, bottom: int) -> HeightMap:
    """Cut columns [left, right) and rows [top, bottom) out of every quantity; InputError where that is no part of the map."""
    height, width = source.shape
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"box {left},{top},{right},{bottom} is no part of {source.path} of {width} x {height} pixels: give LEFT,TOP,RIGHT,"
            "BOTTOM within it"
        )
    shape = bottom - top, right - left
    arrays = {name: Window(one, (top, left), shape) for name, one in source.arrays.items() if one is not None}
    arrays["height_nm"] = Window(source.height_nm, (top, left), shape)
    return _derived(source, f"window of {source.path.name}", arrays["height_nm"], arrays)


def keep_between(source: HeightMap, low_nm: float = -math.inf, high_nm: float = math.inf) -> HeightMap:
    """Drop pixels whose height is below ``low_nm`` or above ``high_nm``."""
    if not low_nm <= high_nm:
        raise InputError(f"heights from {low_nm:g} to {high_nm:g} nm are none: give the lower one first")
    return _derived(source, source.path.name, Between(source.height_nm, low_nm, high_nm))


def grow(source: HeightMap, pixels: int) -> HeightMap:
    """Drop pixels within ``pixels`` rows and columns of a missing one."""
    check_type("grow", pixels, WHOLE, "a whole number of pixels")
    if not 0 <= pixels <= 1000:
        raise InputError(f"grow {pixels} is not 0 to 1000 pixels")
    return _derived(source, source.path.name, Grown(source.height_nm, pixels))


def fill(source: HeightMap, reach_px: float = 16.0, aperture: Aperture | None = None) -> HeightMap:
    """Fill holes by the Gaussian mean of what is around them and flag them as in-painted and invalid (`Holes`)."""
    holes = Holes(source.height_nm, reach_px, aperture)
    mark = int(Flag.INPAINTED | Flag.INVALID)
    flags = Filled(holes, source.arrays.get("flags"), mark)
    heights = Filled(holes)
    return _derived(source, source.path.name, heights, {"height_nm": heights, "flags": flags})


def register(reference: HeightMap, moving: HeightMap, *, turned: bool = True) -> tuple[HeightMap, Similarity]:
    """Lay ``moving`` on the pixels of ``reference``; the map, and how it lay.

    Raises InputError where pixels are not square, or the maps have too little in common.
    """
    for one in (reference, moving):
        pair = pixel_pair(one.pixel_um)
        if pair is not None and abs(pair[0] / pair[1] - 1) > 1e-6:
            raise InputError(f"pixels of {one.path} are not square: resample it first")
    found = find_similarity(reference.height_nm, moving.height_nm, turned=turned)
    laid = ResampledMap(moving.height_nm, found.affine, reference.shape)
    return _derived(reference, f"{moving.path.name} on {reference.path.name}", laid), found


def resample(source: HeightMap, pixel_um: PixelUm) -> HeightMap:
    """Sample a map at another size of pixels by cubics; InputError for larger ones, which would need a filter first."""
    old, new = pixel_pair(source.pixel_um), pixel_pair(pixel_um)
    if old is None or new is None:
        raise InputError(f"{source.path} does not say the size of a pixel: it cannot be sampled at another one")
    if any(b > a * (1 + 1e-9) for a, b in zip(old, new, strict=True)):
        raise InputError(
            f"pixels of {new[0]:g} x {new[1]:g} um are larger than those of {source.path}: filter it and take every n-th pixel"
        )
    ratio = new[0] / old[0], new[1] / old[1]
    shape = tuple(int((length - 1) / share) + 1 for length, share in zip(source.shape, ratio, strict=True))
    affine = Affine(np.array([[ratio[0], 0.0, 0.0], [0.0, ratio[1], 0.0]]))
    laid = ResampledMap(source.height_nm, affine, (shape[0], shape[1]))
    return _derived(source, source.path.name, laid, pixel_um=pixel_um)


def stitch(
    maps: Sequence[HeightMap],
    grid: tuple[int, int] | None = None,
    overlap: float = 0.15,
    places: Sequence[tuple[float, float]] | None = None,
    most_px: int = _MOST_OFF,
) -> tuple[HeightMap, Placement]:
    """Join maps by their overlaps; the mosaic, and where each map lies in it.

    Maps lie on a ``grid`` (rows, columns), one row after the other, overlapping by a share of their size, or at ``places``
    (row and column of the first pixel), within ``most_px`` of these between two neighbours. Places, pistons and tilts come
    from the overlaps. Raises InputError where places are missing or are not one for each map.
    """
    if len(maps) < 2:
        raise InputError("one map alone cannot be stitched: give at least two")
    _check_pixels(maps)
    nominal = _nominal(maps, grid, overlap) if places is None else np.array(places, np.float64)
    if nominal.shape != (len(maps), 2):
        raise InputError(f"places of {len(nominal)} maps for {len(maps)}: give one row and column for each")
    sources = [one.height_nm for one in maps]
    placement = place_maps(sources, nominal, most_px)
    return _derived(maps[0], f"mosaic of {len(maps)}", Mosaic(sources, placement)), placement


def _nominal(maps: Sequence[HeightMap], grid: tuple[int, int] | None, overlap: float) -> Any:
    if grid is None or grid[0] * grid[1] != len(maps):
        raise InputError(f"{len(maps)} maps need a grid of as many places: give grid as ROWSxCOLUMNS, such as 5x5")
    if not 0 < overlap < 1:
        raise InputError(f"overlap {overlap:g} is no share between 0 and 1: give such as 0.15")
    if len({one.shape for one in maps}) > 1:
        raise InputError("maps of a grid have to be of one shape: crop them, or give places")
    height, width = maps[0].shape
    rows, columns = np.divmod(np.arange(len(maps)), grid[1])
    return np.stack([rows * height * (1 - overlap), columns * width * (1 - overlap)], 1)


def _check_alike(maps: Sequence[HeightMap]) -> None:
    if len(maps) < 2:
        raise InputError("this takes at least two maps")
    _check_pixels(maps)
    for one in maps[1:]:
        if one.shape != maps[0].shape:
            raise InputError(
                f"{one.path} is {one.shape[0]} x {one.shape[1]}, {maps[0].path} {maps[0].shape[0]} x {maps[0].shape[1]} (rows "
                "x columns): register or crop one of them first"
            )


def _check_pixels(maps: Sequence[HeightMap]) -> None:
    first = pixel_pair(maps[0].pixel_um)
    for one in maps[1:]:
        other = pixel_pair(one.pixel_um)
        if first and other and any(abs(a / b - 1) > _SAME for a, b in zip(first, other, strict=True)):
            raise InputError(f"{one.path} has pixels of another size than {maps[0].path}: resample one of them")


def _derived(
    source: HeightMap, name: str, heights: Any, arrays: dict[str, Any] | None = None, pixel_um: PixelUm | None = None
) -> HeightMap:
    """Make a map of heights (and other arrays) that keeps what is known of the pixels of ``source``, and no figures of it."""
    acquisition = dict(source.document.get("acquisition") or {})
    if pixel_um is not None:
        acquisition["pixel_um"] = as_json(pixel_um)
    made = {"acquisition": acquisition, "notes": list(source.notes), "made_by": name}
    return HeightMap(Path(name), arrays or {"height_nm": heights}, made)
