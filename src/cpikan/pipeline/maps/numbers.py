"""Numbers of a map as it is cut, levelled and filtered: those that are sums, and those that need the whole map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from cpikan.errors import InputError, check_name
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.pipeline.maps.surface import surface_figures
from cpikan.streaming.events import Events
from cpikan.surface.areal.families import FAMILIES, families_of
from cpikan.surface.spectra.psd import Spectrum, Window, axis_spectrum, plane_spectrum
from cpikan.surface.sums.registry import PARAMETERS


def map_figures(height_map: HeightMap, progress: bool | Events = False) -> dict[str, Any]:
    """Compute the figures of ``surface_figures``, those that are sums, of a map with its filters."""
    plain = replace(height_map, aperture=None, removed=(), filters=())
    if not height_map.filters:
        return surface_figures(plain, remove=height_map.removed, aperture=height_map.aperture, progress=progress)
    # what a fringe left is not told from a filtered map: without its wavelengths
    known = {"acquisition": {"pixel_um": height_map.pixel_um}, "notes": list(height_map.notes)}
    whole = replace(plain, arrays={"height_nm": height_map.height_nm}, document=known)
    named = {"removed": list(height_map.removed), "filters": [one.identity for one in height_map.filters]}
    return surface_figures(whole, remove=(), progress=progress) | named


def map_spectrum(height_map: HeightMap, along: str, window: Window) -> Spectrum:
    """Compute the spectrum of a map with its pixel size along an axis, or over rings of the plane."""
    check_name("spectrum", along, ("x", "y", "rings"))
    if height_map.pixel_um is None:
        raise InputError(
            f"{height_map.path} does not say the size of a pixel: a spectrum needs one, give it in its document"
        )
    heights = np.asarray(height_map.height_nm)
    if along == "rings":
        return plane_spectrum(heights, height_map.pixel_um, window).rings()
    return axis_spectrum(heights, height_map.pixel_um, "x" if along == "x" else "y", window)


def chosen_figures(height_map: HeightMap, names: str | Iterable[str]) -> dict[str, Any]:
    """Compute the named numbers, and all of the named families; those that are sums are streamed.

    Raises InputError for an unknown name.
    """
    wanted = [name.strip() for name in (names.split(",") if isinstance(names, str) else names) if name.strip()]
    summed = [name for name in wanted if name in PARAMETERS]
    families = families_of(name for name in wanted if name not in PARAMETERS)
    found: dict[str, Any] = {}
    if summed:
        every = map_figures(height_map)
        found |= {name: every[name] for name in summed}
    if families:
        for family in families:
            numbers = FAMILIES[family].measure(height_map.height_nm, height_map.pixel_um)
            found |= {key: value for key, value in numbers.items() if family in wanted or key in wanted}
    return found
