"""Surface numbers of one stored height map, of ours or of an instrument, streamed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.maps.map_rows import MapRows
from cpikan.streaming.engine import Band
from cpikan.streaming.events import Events
from cpikan.surface.aperture import Aperture, Circle, pupil_of
from cpikan.surface.form import Form, check_form_terms
from cpikan.surface.measure import MeasureSettings, measure
from cpikan.surface.ripple import fringe_ripple, sample_step
from cpikan.surface.zernike import ZernikeBasis
from cpikan.units import as_json, pixel_aspect

_BLOCK_PIXELS = 1 << 18  # a band and its form stay in the cache

_FEWEST_FRINGES = 2  # below this the form of the ripple measure and the fringes are one thing


def surface_figures(
    source: str | Path | HeightMap,
    *,
    remove: str | Sequence[str] = ("piston",),
    aperture: Aperture | None = None,
    progress: bool | Events = False,
) -> dict[str, Any]:
    """Compute surface numbers of a height map without the terms of ``remove``, by name, and what they rest on.

    PV, PVr, RMS, Sa and the others of ``SurfaceParameters`` over the pixels of ``aperture``, the form with its pupil, and
    the ripple at 1 to 4 times the fringe for each wavelength, before the form was removed (where the file says them,
    and the map spans two fringes).
    Three sweeps of the file (two with a pupil given), memory of a few bands. Raises InputError when the file cannot be
    read, the aperture does not fit, or too few pixels are valid.
    """
    terms = check_form_terms(remove)
    height_map = source if isinstance(source, HeightMap) else open_height_map(source)
    if aperture is not None:
        aperture = aperture.stretched(pixel_aspect(height_map.pixel_um))
        aperture.check(height_map.shape)
    sweeps = _Sweeps(height_map, aperture, progress)
    try:
        found = measure(
            sweeps,
            MeasureSettings(terms, pupil_of(aperture), pixel_um=height_map.pixel_um),
        )
    except InputError as failure:
        raise InputError(f"{height_map.path}: {failure}") from failure
    numbers, form = found.surfaces[0], found.forms[0]
    pupil = found.pupil
    height, width = height_map.shape
    return {
        **numbers.summary(),
        "removed": list(terms),
        "removed_nm": form.summary(),
        "circle_pixels": pupil.numbers,
        "ripple_mrad": sweeps.ripple_mrad(),
        "wavelengths_nm": list(height_map.wavelengths_nm),
        "shape": [height, width],
        "valid_fraction": numbers.pixels / (height * width),
        "pixel_um": as_json(height_map.pixel_um),
        "path": str(height_map.path),
        "warnings": list(height_map.notes),
    }


def _fringes(phase: NDArray[np.float64]) -> float:
    """Count the fringes that a phase map spans, outliers apart."""
    finite = phase[np.isfinite(phase)]
    return float(np.ptp(np.percentile(finite, (1, 99)))) / (2 * np.pi) if finite.size else 0.0


class _Sweeps:
    """The map again and again, band by band; the first time it keeps an even sample for the ripple."""

    def __init__(self, height_map: HeightMap, aperture: Aperture | None, progress: bool | Events) -> None:
        self._map, self._aperture, self._progress = height_map, aperture, progress
        self._step = sample_step(height_map.shape)
        self._sample: list[NDArray[np.float64]] = []
        self._main: list[NDArray[np.bool_]] = []
        self._sampled = not height_map.fringes_nm

    def __call__(self) -> Iterator[tuple[int, NDArray[np.floating]]]:
        rows = MapRows(self._map, progress=self._progress, block_pixels=_BLOCK_PIXELS)
        for band, stored in rows.heights():
            heights = np.array(stored)[None]
            if self._aperture is not None:
                self._aperture.cut(band.start, heights)
            if not self._sampled:
                self._keep(rows, band, heights[0])
            yield band.start, heights
        self._sampled = True

    def _keep(self, rows: MapRows, band: Band, heights: NDArray[np.floating]) -> None:
        first = -band.start % self._step
        self._sample.append(heights[first :: self._step, :: self._step].astype(np.float64))
        component = rows.read("component", band) if (self._map.summary.get("components") or 1) > 1 else None
        if component is not None:
            self._main.append(np.asarray(component[first :: self._step, :: self._step]) == 1)

    def ripple_mrad(self) -> list[dict[str, float]] | None:
        """Compute ripple amplitudes at 1 to 4 times the fringe in mrad per wavelength; None if they cannot be told."""
        if not self._sample:
            return None
        heights = np.concatenate(self._sample)
        removed, main = _removed(self._map.summary.get("form")), np.concatenate(self._main) if self._main else None
        if removed is not None:  # the fringes were those of the surface with its form
            y, x = (self._step * index for index in np.nonzero(np.isfinite(heights)))
            values = removed.basis.values(*removed.pupil.coordinates(y, x))
            heights[np.isfinite(heights)] += np.asarray(removed.coefficients_nm) @ values
        found = []
        for fringe in self._map.fringes_nm:
            phase = 2 * np.pi * heights / fringe
            if _fringes(phase) < _FEWEST_FRINGES:
                return None
            try:
                ripple = fringe_ripple(phase, np.angle(np.exp(1j * phase)), main)
            except InputError:  # too few pixels
                return None
            if not ripple:
                return None
            found.append({str(k): value for k, value in ripple.items()})
        return found


def _removed(form: Any) -> Form | None:
    """Read the form of a summary, without its pistons; None where the summary tells of none."""
    try:
        pupil = Circle(*(float(value) for value in form["circle_pixels"]))
        named = form["coefficients_nm"]
        modes = tuple((int(n), int(m)) for n, m in (re.findall(r"-?\d+", name) for name in named))
        return Form(pupil, ZernikeBasis(modes, pupil.obscuration), tuple(float(value) for value in named.values()))
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
