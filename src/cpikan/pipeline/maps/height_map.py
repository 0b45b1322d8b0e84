"""The result of a reconstruction, as it lies on disk: its quantities, and its rows in bands as often as it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError, check_path
from cpikan.messages import one_line, say
from cpikan.pipeline.maps.filtered import FilteredHeights, MapFilter, Role, SpikelessHeights, map_filter
from cpikan.storage.formats import format_of
from cpikan.storage.maps import LazyMap, MapArray, open_map
from cpikan.storage.writers.layout import QUANTITIES
from cpikan.streaming.engine import Band, split_bands
from cpikan.streaming.events import Events, Progress
from cpikan.surface.apertures.aperture import Aperture, circle_around, pupil_of
from cpikan.surface.forms.form import Form, FormFit, check_form_terms, surface_rows
from cpikan.units import PixelUm, pixel_aspect, pixel_pair

if TYPE_CHECKING:
    from cpikan.surface.profiles.path import Profile
    from cpikan.surface.spectra.psd import Spectrum, Window

_BAND_ROWS = 512  # the largest unit of rows that a file of ours decodes at once


class LevelledHeights(LazyMap):
    """Heights of a map in nm, float64: NaN outside ``aperture`` (None: nowhere), less the least-squares form of ``terms``.

    The form is fitted when heights are first read, in the aperture's own circle or the one around the valid pixels: one
    or two sweeps of the map, memory of a band.
    """

    def __init__(
        self, stored: MapArray, aperture: Aperture | None, terms: tuple[str, ...], aspect: float = 1.0
    ) -> None:
        super().__init__((int(stored.shape[0]), int(stored.shape[1])), np.dtype(np.float64))
        self._stored, self._aperture, self._terms, self._aspect = stored, aperture, terms, aspect

    @cached_property
    def form(self) -> Form:
        """Fit the form that is removed."""
        masks = ((start, np.isfinite(heights)) for start, heights in self._bands())
        fit = FormFit(self._terms, pupil_of(self._aperture) or circle_around(masks, self._aspect))
        for start, heights in self._bands():
            fit.add(start, heights)
        return fit.solve()

    def _read(self, rows: range, columns: range) -> np.ndarray:
        heights = self._cut(rows.start, rows.stop)
        if self._terms:
            form = np.array([self.form.coefficients_nm])
            heights -= surface_rows(self.form.basis, self.form.pupil, form, rows.start, np.isfinite(heights))[0]
        return heights[:, columns.start : columns.stop]

    def _bands(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        for start in range(0, self.shape[0], _BAND_ROWS):
            yield start, self._cut(start, min(start + _BAND_ROWS, self.shape[0]))

    def _cut(self, start: int, stop: int) -> NDArray[np.float64]:
        heights = np.array(self._stored[start:stop], np.float64)
        if self._aperture is not None:
            self._aperture.cut(start, heights)
        return heights


@dataclass(frozen=True)
class HeightMap:
    """A height map with what is known about each pixel; the arrays, of shape (H, W), are read from disk when indexed.

    ``height_nm`` (NaN where there is no measurement), ``sigma_nm`` (standard deviation of the height), ``modulation``
    (in the units of the frames), ``flags`` (bits of ``cpikan.psi.model.flags.Flag``), ``component`` (number of the connected
    component). A fitted surface (``--method field``) also has ``slope_y_nm_per_px``, ``slope_x_nm_per_px``,
    ``curvature_nm_per_px2`` (the sum of the second derivatives) and the sigmas ``slope_sigma_nm_per_px`` (the larger of both
    slopes) and ``curvature_sigma_nm_per_px2``. What was not stored is None.
    ``document`` holds acquisition, settings and summary. ``within``, ``remove`` and ``filtered`` give maps of the same
    file that are cut, levelled and filtered, in this order, when they are read.
    """

    path: Path
    arrays: Mapping[str, MapArray]
    document: dict[str, Any]
    aperture: Aperture | None = None
    removed: tuple[str, ...] = ()
    filters: tuple[MapFilter, ...] = ()

    def __repr__(self) -> str:
        """Name the file, its size and what it stores, in one line."""
        height, width = self.shape
        cut = "" if self.aperture is None else ", within an aperture"
        level = f", {','.join(self.removed)} removed" if self.removed else ""
        sieve = "".join(f", {one.identity}" for one in self.filters)
        return f"HeightMap({str(self.path)!r}, {height} x {width}: {', '.join(self.arrays)}{cut}{level}{sieve})"

    def _repr_html_(self) -> str:
        """Show a picture and key numbers in a notebook; the map is read once, in bands."""
        from cpikan.pipeline.maps.notebook import map_html

        return map_html(self)

    def within(self, aperture: Aperture) -> HeightMap:
        """Restrict the map to the pixels inside an aperture, and inside those of earlier calls; nothing is read.

        Raises InputError when the aperture does not fit the map or lets no pixel in.
        """
        aperture = aperture.stretched(pixel_aspect(self.pixel_um))
        inner = aperture if self.aperture is None else self.aperture & aperture
        inner.check(self.shape)
        return replace(self, aperture=inner)

    def remove(self, terms: str | Iterable[str]) -> HeightMap:
        """Remove the least-squares form of ``terms``, such as "piston,tilt"; the fit is made when heights are read.

        Terms are those of ``cpikan.surface.forms.form.check_form_terms``, added to those of earlier calls. Raises InputError
        for any other.
        """
        return replace(self, removed=check_form_terms((*self.removed, *check_form_terms(terms))))

    def filtered(
        self, s_filter: str | None = None, l_filter: str | None = None, *, kind: str = "gaussian"
    ) -> HeightMap:
        """Filter the map by ISO 16610 after its form was removed; it is swept when heights are read.

        ``s_filter`` keeps what is larger than its nesting index, ``l_filter`` what is smaller than its own; the S-filter
        comes first. Each is a length ("0.8 mm"), or pixels ("80 px"). ``kind`` is one of ``cpikan.surface.filters.kinds``.
        Raises InputError for anything else.
        """
        given: tuple[tuple[Role, str | None], ...] = (("s", s_filter), ("l", l_filter))
        made = [map_filter(role, kind, nesting, self.pixel_um) for role, nesting in given if nesting is not None]
        if not made:
            raise InputError(
                'a filter has no nesting index: give s_filter, l_filter or both, such as l_filter="0.8 mm"'
            )
        return replace(self, filters=(*self.filters, *made))

    def without_spikes(self, sigmas: float = 6.0, window: int = 5) -> HeightMap:
        """Put NaN in place of pixels that stand out from the median around them, before all else; see ``find_spikes``.

        Nothing is read yet; the whole map is when heights are. Raises InputError for a window that is not odd and above 1.
        """
        clear = SpikelessHeights(self.arrays["height_nm"], sigmas, window)
        told = {**self.document, "spikes": {"sigmas": sigmas, "window_px": window}}
        return replace(self, arrays={**self.arrays, "height_nm": clear}, document=told)

    def profile(self, points: Sequence[tuple[float, float]], step_um: float | None = None) -> Profile:
        """Take heights along the line or polyline through ``points`` (x, y) in pixels; see ``line_profile``."""
        from cpikan.surface.profiles.path import line_profile

        return line_profile(self.height_nm, points, self.pixel_um, step_um)

    def spectrum(self, along: str = "rings", window: Window = "hann") -> Spectrum:
        """Compute the power spectral density along "x" or "y", or over "rings" of equal frequency; the whole map is read.

        Raises InputError for a map without a pixel size, and for other names.
        """
        from cpikan.pipeline.maps.numbers import map_spectrum

        return map_spectrum(self, along, window)

    def figures(self, names: str | Iterable[str] | None = None) -> dict[str, Any]:
        """Compute the surface numbers that ``cpikan evaluate`` gives of this cut, levelled and filtered map.

        With ``names``, only those: keys of numbers, or families ("functional", "spatial", "features") of
        ``cpikan.surface.areal.families``, which sweep the map several times. Raises InputError for an unknown name.
        """
        from cpikan.pipeline.maps.numbers import chosen_figures, map_figures

        return map_figures(self) if names is None else chosen_figures(self, names)

    def save(self, path: str | Path, *, overwrite: bool = False) -> HeightMap:
        """Write the map in any format that can be written, with its other quantities, and open it there.

        What the format cannot hold is said in a line on stderr. A format that is only written gives this map back. Raises
        InputError for an output that exists (without ``overwrite``), a suffix that cannot be written, and too little disk.
        """
        from cpikan.pipeline.maps.save import save_map

        for told in save_map(self, Path(path), overwrite=overwrite).told:
            say(f"cpikan: warning: {one_line(told)}")
        known = format_of(Path(path))
        return self if known is None or known.heights is None else open_height_map(path)

    def subtract(self, other: HeightMap) -> HeightMap:
        """Give this map less another of the same pixels, NaN where either is; like all that follow nothing is read before it is
        asked for, and ``save`` writes it a band at a time."""
        from cpikan.pipeline.maps import combine

        return combine.subtract(self, other)

    def average(self, *others: HeightMap, fewest: int = 1) -> HeightMap:
        """Give the mean with other maps of the same pixels, where at least ``fewest`` of them are valid."""
        from cpikan.pipeline.maps import combine

        return combine.average([self, *others], fewest)

    def stitch(self, *others: HeightMap, **how: Any) -> HeightMap:
        """Join with other maps by their overlaps; ``how`` is grid and overlap, or places (`combine.stitch`)."""
        from cpikan.pipeline.maps import combine

        return combine.stitch([self, *others], **how)[0]

    def register(self, reference: HeightMap, *, turned: bool = True) -> HeightMap:
        """Lay this map on the pixels of another, shifted, and where ``turned`` also turned and scaled."""
        from cpikan.pipeline.maps import combine

        return combine.register(reference, self, turned=turned)[0]

    def crop(self, left: int, top: int, right: int, bottom: int) -> HeightMap:
        """Cut out columns [left, right) and rows [top, bottom)."""
        from cpikan.pipeline.maps import combine

        return combine.crop(self, left, top, right, bottom)

    def keep_between(self, low_nm: float, high_nm: float) -> HeightMap:
        """Drop heights outside two limits in nm."""
        from cpikan.pipeline.maps import combine

        return combine.keep_between(self, low_nm, high_nm)

    def grow(self, pixels: int) -> HeightMap:
        """Drop pixels beside missing ones."""
        from cpikan.pipeline.maps import combine

        return combine.grow(self, pixels)

    def fill(self, reach_px: float = 16.0, aperture: Aperture | None = None) -> HeightMap:
        """Fill holes by the Gaussian mean of what is around them, flagged as in-painted and invalid."""
        from cpikan.pipeline.maps import combine

        return combine.fill(self, reach_px, aperture)

    def resample(self, pixel_um: PixelUm) -> HeightMap:
        """Sample the map at smaller pixels."""
        from cpikan.pipeline.maps import combine

        return combine.resample(self, pixel_um)

    def __getattr__(self, name: str) -> MapArray | None:
        """Return a quantity of the table, None when the map does not store it."""
        if name not in QUANTITIES:
            raise AttributeError(f"a height map has no attribute {name!r}: its quantities are {', '.join(QUANTITIES)}")
        return self.arrays.get(name)

    @cached_property
    def height_nm(self) -> MapArray:
        """Open the heights in nm, NaN where unmeasured or outside the aperture, without the named form, filtered."""
        heights = self.arrays["height_nm"]
        if self.aperture is not None or self.removed:
            heights = LevelledHeights(heights, self.aperture, self.removed, pixel_aspect(self.pixel_um))
        for one in self.filters:
            heights = FilteredHeights(heights, one)
        return heights

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.arrays["height_nm"].shape
        return height, width

    @property
    def summary(self) -> dict[str, Any]:
        """Return the figures of the run, {} when the document is absent."""
        summary: dict[str, Any] = self.document.get("summary", {})
        return summary

    @property
    def wavelengths_nm(self) -> tuple[float, ...]:
        """List the wavelengths of the measurement, empty where the file does not say them."""
        try:
            return tuple(float(value) for value in self._acquisition.get("wavelengths_nm") or ())
        except (TypeError, ValueError) as failure:
            raise InputError(
                f"{self.path}: its document has no numbers in wavelengths_nm: mend it, or move it away"
            ) from failure

    @property
    def fringes_nm(self) -> tuple[float, ...]:
        """Give the fringe height of each wavelength in nm: half of it, unless an instrument says otherwise."""
        return tuple(self.document.get("fringes_nm") or (value / 2 for value in self.wavelengths_nm))

    @property
    def pixel_um(self) -> PixelUm | None:
        """Give the lateral size of a pixel in um, (y, x) where it is not square, None where the file does not say it."""
        pair = pixel_pair(self._acquisition.get("pixel_um"))
        return pair[0] if pair is not None and pair[0] == pair[1] else pair

    @property
    def notes(self) -> tuple[str, ...]:
        """List the warnings for who reads heights of this map off."""
        parts = self.summary.get("components") or 1
        loose = parts > 1 and len(self.wavelengths_nm) == 1
        told = f"{self.path} has {parts} components, whose relative heights are not known"
        return (*self.document.get("notes", ()), *((told,) if loose else ()))

    @property
    def _acquisition(self) -> dict[str, Any]:
        return self.document.get("acquisition") or {}


def open_height_map(path: Path | str) -> HeightMap:
    """Open a height map of any format that holds heights, lazily; InputError when it is missing, unfinished or damaged."""
    check_path("the map", path)
    stored = open_map(path)
    return HeightMap(stored.path, stored.arrays, stored.document)


_HIGHEST_NM = 1e15
_BLOCK_PIXELS = 1 << 20
_CHUNK_ROWS = 512  # the largest unit of rows that a file of ours decodes at once


def check_heights(heights: NDArray[np.number], name: str) -> None:
    """Raise InputError for finite heights in nm that no surface has: their powers would leave the range of numbers."""
    size = np.abs(np.asarray(heights, np.float64))
    beyond = (size > _HIGHEST_NM) & (size < np.inf)
    if beyond.any():
        raise InputError(
            f"{name} holds a height of {size[beyond].max():.3g} nm: more than {_HIGHEST_NM:g} nm is no height; check the file, "
            "and that it is in nm"
        )


class MapRows:
    """The quantities of a height map read in bands of ``block_pixels`` (about a million).

    Every chunk of the file is decoded once per sweep.
    Bands hold a power of two of rows, so none crosses a chunk; the rows of the last chunk of each quantity are kept.
    """

    def __init__(
        self,
        height_map: HeightMap,
        label: str = "evaluate",
        *,
        progress: bool | Events = False,
        block_pixels: int | None = None,
    ) -> None:
        self.map = height_map
        self._label, self._progress = label, progress
        height, width = (int(n) for n in height_map.height_nm.shape)
        self.shape = (height, width)
        rows = min(_CHUNK_ROWS, max(1, (block_pixels or _BLOCK_PIXELS) // width))
        self.bands = split_bands(height, 1 << (rows.bit_length() - 1))
        self._kept: dict[str, tuple[int, NDArray[Any]]] = {}

    def read(self, name: str, band: Band) -> NDArray[Any] | None:
        """Read rows of the quantity ``name`` (``height_nm``, ``sigma_nm``, ...), None when the map has none."""
        source = getattr(self.map, name)
        if source is None or isinstance(source, np.ndarray):
            return None if source is None else source[band.start : band.stop]
        first = band.start // _CHUNK_ROWS * _CHUNK_ROWS
        if name not in self._kept or self._kept[name][0] != first:
            self._kept[name] = (first, np.asarray(source[first : first + _CHUNK_ROWS, :]))
        return self._kept[name][1][band.start - first : band.stop - first]

    def heights(self, sweep: str = "") -> Iterator[tuple[Band, NDArray[Any]]]:
        """Yield every band with its heights in nm, from top to bottom; ``sweep`` is told beside the progress."""
        with Progress(self._label + sweep, *self.shape, self._progress) as bar:
            for band in self.bands:
                rows = self.read("height_nm", band)
                assert rows is not None
                check_heights(rows, str(self.map.path))
                yield band, rows
                bar.advance(band.rows)
