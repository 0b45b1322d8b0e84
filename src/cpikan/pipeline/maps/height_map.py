"""The result of a reconstruction, as it lies on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cpikan.pipeline.maps.levelled import LevelledHeights
from cpikan.storage.maps import MapArray, open_map
from cpikan.storage.writers.layout import QUANTITIES
from cpikan.surface.aperture import Aperture
from cpikan.surface.form import check_form_terms
from cpikan.units import PixelUm, pixel_aspect, pixel_pair


@dataclass(frozen=True)
class HeightMap:
    """A height map with what is known about each pixel; the arrays, of shape (H, W), are read from disk when indexed.

    ``height_nm`` (NaN where there is no measurement), ``sigma_nm`` (standard deviation of the height), ``modulation``
    (in the units of the frames), ``flags`` (bits of ``cpikan.psi.model.flags.Flag``), ``component`` (number of the connected
    component). A fitted surface (``--method field``) also has ``slope_y_nm_per_px``, ``slope_x_nm_per_px``,
    ``curvature_nm_per_px2`` (the sum of the second derivatives) and the sigmas ``slope_sigma_nm_per_px`` (the larger of both
    slopes) and ``curvature_sigma_nm_per_px2``. What was not stored is None.
    ``document`` holds acquisition, settings and summary. ``within`` and ``remove`` give maps of the same file that are cut and
    levelled when they are read.
    """

    path: Path
    arrays: Mapping[str, MapArray]
    document: dict[str, Any]
    aperture: Aperture | None = None
    removed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Name the file, its size and what it stores, in one line."""
        height, width = self.shape
        cut = "" if self.aperture is None else ", within an aperture"
        level = f", {','.join(self.removed)} removed" if self.removed else ""
        return f"HeightMap({str(self.path)!r}, {height} x {width}: {', '.join(self.arrays)}{cut}{level})"

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

        Terms are those of ``cpikan.surface.form.check_form_terms``, added to those of earlier calls. Raises InputError for
        any other.
        """
        return replace(self, removed=check_form_terms((*self.removed, *check_form_terms(terms))))

    def figures(self) -> dict[str, Any]:
        """Compute the surface numbers that ``cpikan evaluate`` gives with this aperture and these removed terms."""
        from cpikan.pipeline.maps.surface import surface_figures

        stored = replace(self, aperture=None, removed=())
        return surface_figures(stored, remove=self.removed, aperture=self.aperture)

    def save(self, path: str | Path, *, overwrite: bool = False) -> HeightMap:
        """Write the map in any format that can be written, with its other quantities, and open it there.

        A format without ``component`` or ``modulation`` takes them all the same. Raises InputError for an output that exists
        (without ``overwrite``), a suffix that cannot be written, and too little disk.
        """
        from cpikan.pipeline.maps.save import save_map

        save_map(self, Path(path), overwrite=overwrite)
        return open_height_map(path)

    def __getattr__(self, name: str) -> MapArray | None:
        """Return a quantity of the table, None when the map does not store it."""
        if name not in QUANTITIES:
            raise AttributeError(f"a height map has no attribute {name!r}: its quantities are {', '.join(QUANTITIES)}")
        return self.arrays.get(name)

    @cached_property
    def height_nm(self) -> MapArray:
        """Open the heights in nm, NaN where unmeasured or outside the named aperture, and without the named form."""
        stored = self.arrays["height_nm"]
        if self.aperture is None and not self.removed:
            return stored
        return LevelledHeights(stored, self.aperture, self.removed, pixel_aspect(self.pixel_um))

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.height_nm.shape
        return height, width

    @property
    def summary(self) -> dict[str, Any]:
        """Return the figures of the run, {} when the document is absent."""
        summary: dict[str, Any] = self.document.get("summary", {})
        return summary

    @property
    def wavelengths_nm(self) -> tuple[float, ...]:
        """List the wavelengths of the measurement, empty where the file does not say them."""
        return tuple(float(value) for value in self._acquisition.get("wavelengths_nm") or ())

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
    stored = open_map(path)
    return HeightMap(stored.path, stored.arrays, stored.document)
