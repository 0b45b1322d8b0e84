"""Surface numbers of stored height maps, of ours or of an instrument, streamed: of one, and of two and their difference."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, MapRows, open_height_map
from cpikan.streaming.engine import Band
from cpikan.streaming.events import Events, Progress
from cpikan.surface.apertures.aperture import Aperture, Circle, laid_on, pupil_of
from cpikan.surface.forms.form import Form, check_form_terms
from cpikan.surface.forms.zernike import ZernikeBasis
from cpikan.surface.spectra.ripple import fringe_ripple, sample_step
from cpikan.surface.sums.measure import Measurement, MeasureSettings, measure
from cpikan.units import PixelUm, as_json, pixel_aspect, pixel_pair

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
    aperture = laid_on(aperture, height_map.shape, pixel_aspect(height_map.pixel_um))
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


_PAIR = ((1.0, 0.0), (0.0, 1.0), (1.0, -1.0))  # A, B, A - B
_PIXEL_AGREEMENT = 0.01  # two calibrations of one magnification agree better than this


@dataclass(frozen=True)
class MapComparison:
    """Two maps measured on the pixels that are valid in both; ``measurement`` holds A, B and A - B in this order."""

    first: HeightMap
    second: HeightMap
    removed: tuple[str, ...]
    measurement: Measurement
    pixel_um: PixelUm | None
    valid: tuple[int, int]

    def summary(self) -> dict[str, Any]:
        """Return all numbers by name: ``a``, ``b``, ``difference``, and what they rest on."""
        height, width = self.first.shape
        pupil = self.measurement.pupil
        named = zip(("a", "b", "difference"), self.measurement.surfaces, self.measurement.forms, strict=True)
        surfaces = {name: numbers.summary() | {"removed_nm": form.summary()} for name, numbers, form in named}
        pixels = self.measurement.surfaces[0].pixels
        return {
            **surfaces,
            "paths": [str(self.first.path), str(self.second.path)],
            "removed": list(self.removed),
            "pixels": pixels,
            "shape": [height, width],
            "valid_fraction": [count / (height * width) for count in self.valid],
            "common_fraction": pixels / (height * width),
            "circle_pixels": pupil.numbers,
            "pixel_um": as_json(self.pixel_um),
            "warnings": [*self.first.notes, *self.second.notes],
        }


def compare_maps(
    first: str | Path,
    second: str | Path,
    *,
    remove: str | tuple[str, ...] = ("piston",),
    aperture: Aperture | None = None,
    progress: bool | Events = False,
) -> MapComparison:
    """Compute the surface numbers of two height maps and of their difference, each without the terms of ``remove``.

    All three rest on the same pixels: valid in both, and inside ``aperture`` when one is given (otherwise the form is
    fitted in the circle around those pixels). The fit is plain least squares, so the difference without its form is the
    difference of the two without theirs; an error of a whole fringe order is a difference like any other (``evaluate``
    tells them apart). Terms are those of ``cpikan.surface.forms.form.check_form_terms``. Raises InputError when a file cannot
    be read, the shapes or pixel sizes differ, or too few pixels are valid in both.
    """
    terms = check_form_terms(remove)
    pair = _Pair(open_height_map(first), open_height_map(second), aperture, progress)
    pixel_um = pair.check()
    try:
        measurement = measure(pair.sweep, MeasureSettings(terms, pupil_of(pair.aperture), _PAIR, pixel_um))
    except InputError as failure:
        raise InputError(f"{first} and {second}: {failure}") from failure
    return MapComparison(pair.first, pair.second, terms, measurement, pixel_um, pair.valid)


class _Pair:
    """Two maps read together, band by band, as often as it takes."""

    def __init__(self, first: HeightMap, second: HeightMap, aperture: Aperture | None, progress: bool | Events) -> None:
        self.first, self.second = first, second
        self.aperture, self._progress = aperture, progress
        self.valid = (0, 0)

    def check(self) -> PixelUm | None:
        """Find the common pixel size in um, None if neither map says it; InputError if the maps do not match."""
        one, two = self.first, self.second
        if one.shape != two.shape:
            raise InputError(
                f"{one.path} is {one.shape[0]} x {one.shape[1]}, {two.path} {two.shape[0]} x {two.shape[1]} "
                "(rows x columns): compare maps of one shape, cut or resample one of them"
            )
        sizes = [size for size in (one.pixel_um, two.pixel_um) if size is not None]
        pairs = [pair for pair in map(pixel_pair, sizes) if pair is not None]
        if len(pairs) == 2 and any(abs(a - b) > _PIXEL_AGREEMENT * max(a, b) for a, b in zip(*pairs, strict=True)):
            raise InputError(
                f"{one.path} has pixels of {_told(sizes[0])} um, {two.path} of {_told(sizes[-1])} um: compare maps of one "
                "scale, resample one of them"
            )
        self.aperture = laid_on(self.aperture, one.shape, pixel_aspect(sizes[0] if sizes else None))
        return sizes[0] if sizes else None

    def sweep(self) -> Iterator[tuple[int, NDArray[np.floating]]]:
        """Yield bands from top to bottom: first row, heights in nm (2, rows, W), float64."""
        both = [MapRows(one, block_pixels=_BLOCK_PIXELS) for one in (self.first, self.second)]
        counts = np.zeros(2, np.int64)
        with Progress("compare", *self.first.shape, self._progress) as bar:
            for band in both[0].bands:
                maps = np.stack([np.asarray(one.read("height_nm", band), np.float64) for one in both])
                counts += np.count_nonzero(np.isfinite(maps), axis=(1, 2))
                if self.aperture is not None:
                    self.aperture.cut(band.start, maps)
                yield band.start, maps
                bar.advance(band.rows)
        self.valid = (int(counts[0]), int(counts[1]))


def _told(pixel_um: PixelUm) -> str:
    return " x ".join(f"{size:.6g}" for size in (pixel_um if isinstance(pixel_um, tuple) else (pixel_um,)))
