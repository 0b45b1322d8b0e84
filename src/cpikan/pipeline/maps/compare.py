"""Compare two height maps, of ours or of an instrument: the surface numbers of each and of their difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.maps.map_rows import MapRows
from cpikan.streaming.events import Events, Progress
from cpikan.surface.aperture import Aperture, pupil_of
from cpikan.surface.form import check_form_terms
from cpikan.surface.measure import Measurement, MeasureSettings, measure
from cpikan.units import PixelUm, as_json, pixel_aspect, pixel_pair

_PAIR = ((1.0, 0.0), (0.0, 1.0), (1.0, -1.0))  # A, B, A - B
_PIXEL_AGREEMENT = 0.01  # two calibrations of one magnification agree better than this
_BLOCK_PIXELS = 1 << 18  # two maps and their forms of such a band take some 20 MiB


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
    tells them apart). Terms are those of ``cpikan.surface.form.check_form_terms``. Raises InputError when a file cannot
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
        if self.aperture is not None:
            self.aperture = self.aperture.stretched(pixel_aspect(sizes[0] if sizes else None))
            self.aperture.check(one.shape)
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
