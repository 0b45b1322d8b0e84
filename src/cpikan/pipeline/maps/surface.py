"""Surface numbers of one stored height map, of ours or of an instrument, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_source import HeightSource, open_heights
from cpikan.pipeline.maps.region import Region
from cpikan.streaming.bands import Band, split_bands
from cpikan.streaming.events import Events
from cpikan.streaming.progress import Progress
from cpikan.surface.form import check_form_terms
from cpikan.surface.measure import MeasureSettings, measure
from cpikan.surface.ripple import fringe_ripple, sample_step

_BLOCK_PIXELS = 1 << 18  # a band and its form stay in the cache
_CHUNK_ROWS = 512  # bands of a power of two of rows, at most this, never cross a chunk of a stored map

_FEWEST_FRINGES = 2  # below this the form of the ripple measure and the fringes are one thing


def measure_map(
    path: str | Path,
    *,
    remove: str | Sequence[str] = ("piston",),
    region: Region | None = None,
    progress: bool | Events = False,
) -> dict[str, Any]:
    """Surface numbers of a height map without the terms of ``remove``, by name, and what they rest on.

    PV, PVr, RMS, Sa and the others of ``SurfaceParameters`` over the pixels of ``region``, the form with its pupil, and
    the ripple at 1 to 4 times the fringe for each wavelength, before the form was removed (where the file says them,
    and the map spans two fringes).
    Three sweeps of the file (two with a pupil given), memory of a few bands. Raises InputError when the file cannot be
    read, the region does not fit, or too few pixels are valid.
    """
    terms, region = check_form_terms(remove), region or Region()
    source = open_heights(path)
    region.check(source.shape)
    sweeps = _Sweeps(source, region, progress)
    try:
        found = measure(sweeps, MeasureSettings(terms, region.pupil, pixel_um=source.pixel_um))
    except InputError as failure:
        raise InputError(f"{path}: {failure}") from failure
    numbers, form = found.surfaces[0], found.forms[0]
    pupil = found.pupil
    height, width = source.shape
    return {
        **numbers.summary(),
        "removed": list(terms),
        "removed_nm": form.summary(),
        "circle_pixels": [pupil.x, pupil.y, pupil.radius, pupil.inner],
        "ripple_mrad": sweeps.ripple_mrad(),
        "wavelengths_nm": list(source.wavelengths_nm),
        "shape": [height, width],
        "valid_fraction": numbers.pixels / (height * width),
        "pixel_um": source.pixel_um,
        "path": str(path),
        "warnings": list(source.notes),
    }


def _fringes(phase: NDArray[np.float64]) -> float:
    """How many fringes a phase map spans, outliers apart."""
    finite = phase[np.isfinite(phase)]
    return float(np.ptp(np.percentile(finite, (1, 99)))) / (2 * np.pi) if finite.size else 0.0


class _Sweeps:
    """The map again and again, band by band; the first time it keeps an even sample for the ripple."""

    def __init__(self, source: HeightSource, region: Region, progress: bool | Events) -> None:
        self._source, self._region, self._progress = source, region, progress
        self._step = sample_step(source.shape)
        self._sample: list[NDArray[np.float64]] = []
        self._main: list[NDArray[np.bool_]] = []
        self._sampled = not source.fringes_nm

    def __call__(self) -> Iterator[tuple[int, NDArray[np.floating]]]:
        height, width = self._source.shape
        rows = min(_CHUNK_ROWS, max(1, _BLOCK_PIXELS // width))
        with Progress("evaluate", height, width, self._progress) as bar:
            for band in split_bands(height, 1 << (rows.bit_length() - 1)):
                heights = np.array(self._source.rows(band))[None]
                self._region.cut(band, heights)
                if not self._sampled:
                    self._keep(band, heights[0])
                yield band.start, heights
                bar.advance(band.rows)
        self._sampled = True

    def _keep(self, band: Band, heights: NDArray[np.floating]) -> None:
        first = -band.start % self._step
        self._sample.append(heights[first :: self._step, :: self._step].astype(np.float64))
        if self._source.main_part is not None:
            self._main.append(self._source.main_part(band)[first :: self._step, :: self._step])

    def ripple_mrad(self) -> list[dict[str, float]] | None:
        """Amplitudes at 1 to 4 times the fringe, one entry per wavelength; None where they cannot be told."""
        if not self._sample:
            return None
        heights = np.concatenate(self._sample)
        removed, main = self._source.removed, np.concatenate(self._main) if self._main else None
        if removed is not None:  # the fringes were those of the surface with its form
            y, x = (self._step * index for index in np.nonzero(np.isfinite(heights)))
            values = removed.basis.values(*removed.pupil.coordinates(y, x))
            heights[np.isfinite(heights)] += np.asarray(removed.coefficients_nm) @ values
        found = []
        for fringe in self._source.fringes_nm:
            phase = 2 * np.pi * heights / fringe
            if _fringes(phase) < _FEWEST_FRINGES:
                return None
            try:
                ripple = fringe_ripple(phase, np.angle(np.exp(1j * phase)), main)
            except InputError:  # too few pixels
                return None
            found.append({str(k): value for k, value in ripple.items()})
        return found
