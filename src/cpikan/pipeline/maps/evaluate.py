"""Compare a reconstructed height map with the truth, in one pass of bands after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.masked import without_mask
from cpikan.metrics import wrong_order_limit_nm
from cpikan.pipeline.maps.height_map import HeightMap, MapRows, check_heights, open_height_map
from cpikan.psi.model.flags import Flag
from cpikan.storage.maps import open_npy
from cpikan.streaming.engine import Band
from cpikan.streaming.events import Events
from cpikan.surface.apertures.aperture import Aperture, laid_on, pupil_of
from cpikan.surface.apertures.components import ComponentScan
from cpikan.surface.forms.alignment import Alignment, Block, align
from cpikan.surface.forms.form import check_form_terms, form_modes
from cpikan.surface.sums.tallies import ErrorTally
from cpikan.units import pixel_aspect

_INPAINTED = int(Flag.INPAINTED)


def open_truth(truth: str | Path | NDArray[np.number], shape: tuple[int, int]) -> NDArray[np.number]:
    """Open the true heights in nm, (H, W), memory-mapped from a .npy file or an array as it is (NaN where it is masked).

    Raises InputError for a missing or unreadable file, another shape, or anything but real numbers.
    """
    name = "the truth" if isinstance(truth, np.ndarray) else f"truth {str(truth)!r}"
    if not isinstance(truth, np.ndarray):
        if not Path(truth).is_file():
            raise InputError(f"{name} is not a file: give a .npy file of heights in nm")
        truth = open_npy(Path(truth))
    heights: NDArray[np.number] = without_mask(truth)
    if heights.ndim != 2 or heights.dtype.kind not in "iuf":
        raise InputError(
            f"{name} is an array of {heights.ndim} dimensions and type {heights.dtype}: "
            "give real heights in nm of shape (H, W)"
        )
    if heights.shape != tuple(shape):
        raise InputError(f"{name} has shape {heights.shape}, the height map {tuple(shape)}: give the truth of this map")
    return heights


@dataclass(frozen=True)
class Comparison:
    """A height map laid on its truth; ``errors`` gives the error in nm once pistons (and a form) are removed.

    Guesses (flag 32) are no measurement: they take no part in any of it, and ``guesses`` gives their errors.
    """

    rows: MapRows
    truth: NDArray[np.number]
    limit_nm: float
    scan: ComponentScan | None
    alignment: Alignment
    removed: tuple[str, ...]
    aperture: Aperture | None

    def blocks(self) -> Iterator[Block]:
        """Yield the raw difference in nm with the labels of its components, band by band."""
        return _blocks(self.rows, self.truth, self.scan, self.aperture)

    def errors(self) -> Iterator[tuple[Band, NDArray[np.float64]]]:
        """Yield every band with its error in nm (float64, NaN where either map is invalid), from top to bottom."""
        for band, block in zip(self.rows.bands, self.blocks(), strict=True):
            yield band, self.alignment.error(block)

    def guesses(self) -> Iterator[NDArray[np.float64]]:
        """Yield the errors of guessed pixels in nm, band by band; nothing where the map stores no flags."""
        if self.rows.map.flags is None:
            return
        for block in _blocks(self.rows, self.truth, self.scan, self.aperture, guessed=True):
            error = self.alignment.error(block)
            yield error[np.isfinite(error)]


def _blocks(
    rows: MapRows,
    truth: NDArray[np.number],
    scan: ComponentScan | None,
    aperture: Aperture | None,
    *,
    guessed: bool = False,
) -> Iterator[Block]:
    """Yield the difference to the truth in nm at the pixels that were measured, or at those that were ``guessed``."""
    for band, height in rows.heights():
        check_heights(truth[band.start : band.stop], "the truth")
        difference = height.astype(np.float64) - truth[band.start : band.stop].astype(np.float64)
        difference[~np.isfinite(difference)] = np.nan
        flags = rows.read("flags", band)
        guess = np.zeros(height.shape, bool) if flags is None else (flags & _INPAINTED) > 0
        difference[guess != guessed] = np.nan
        if aperture is not None:
            aperture.cut(band.start, difference)
        if scan is not None:
            labels = scan.rows(band.start, np.isfinite(height)) if scan.count > 1 else None
        else:
            component = rows.read("component", band)
            labels = None if component is None else np.maximum(component, 0).astype(np.int64)
            if guessed and labels is not None:
                labels = _surrounded(labels, guess)
        yield Block(band.start, difference, labels)


def _surrounded(labels: NDArray[np.int64], guess: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Label guesses too: one component surrounds a hole, so the last pixel before it in the row has its label."""
    last = np.maximum.accumulate(np.where(guess, 0, np.arange(labels.shape[1])), axis=1)
    return np.take_along_axis(labels, last, axis=1)


def align_to_truth(
    height_map: HeightMap,
    truth: str | Path | NDArray[np.number],
    *,
    remove: str | Sequence[str] = (),
    aperture: Aperture | None = None,
    progress: bool | Events = False,
) -> Comparison:
    """Lay a height map on its truth: a piston per component is always removed, and a common form as ``remove`` names it.

    Terms are those of ``cpikan.surface.forms.form.check_form_terms``; only pixels of ``aperture`` count.
    Components are those of the map's ``component`` array; without one, a map of a single wavelength is split into the
    connected parts of its finite pixels. Raises InputError for an unknown term, a truth that does not fit, or a map
    that does not say its wavelengths.
    """
    terms = check_form_terms(remove)
    wavelengths = _wavelengths_nm(height_map)
    rows = MapRows(height_map, progress=progress)
    heights = open_truth(truth, rows.shape)
    scan = _scan(rows) if height_map.component is None and len(wavelengths) == 1 else None
    limit_nm = wrong_order_limit_nm(wavelengths)
    aspect = pixel_aspect(height_map.pixel_um)
    aperture = laid_on(aperture, rows.shape, aspect)
    removed = check_form_terms(("piston", *terms))
    alignment = align(
        lambda: _blocks(rows, heights, scan, aperture),
        rows.shape,
        limit_nm,
        form_modes(removed),
        pupil_of(aperture),
        aspect,
    )
    return Comparison(rows, heights, limit_nm, scan, alignment, removed, aperture)


def _scan(rows: MapRows) -> ComponentScan:
    scan = ComponentScan()
    for band, height in rows.heights():
        scan.add(band.start, np.isfinite(height))
    scan.finish()
    return scan


def _wavelengths_nm(height_map: HeightMap) -> tuple[float, ...]:
    if not height_map.wavelengths_nm:
        raise InputError(
            f"{str(height_map.path)!r} does not say its wavelengths, against which wrong orders are counted: "
            "keep the .json beside it"
        )
    return height_map.wavelengths_nm


def error_figures(comparison: Comparison) -> dict[str, Any]:
    """Compute the figures of a comparison under the names of ``cpikan evaluate``, and what they rest on.

    rms_nm and max_abs_nm are over right-order pixels (error within a quarter of the shortest wavelength), the others
    over all pixels measured and valid in both maps; coverage_95 is None without sigma, and a wrong order is a miss.
    ``inpainted`` is None, or the pixels that were guessed, with the RMS and the largest of all their errors. Raises
    InputError when no pixel is valid in both.
    """
    tally = ErrorTally(comparison.limit_nm)
    origin = _typical(comparison.truth)
    for band, error in comparison.errors():
        truth = comparison.truth[band.start : band.stop].astype(np.float64) - origin
        tally.add(error, truth, comparison.rows.read("sigma_nm", band))
    if not tally.pixels:
        raise InputError(f"{str(comparison.rows.map.path)!r} and the truth have no valid pixel in common")
    return tally.summary() | {
        "inpainted": _guessed(comparison),
        "wrong_order_limit_nm": comparison.limit_nm,
        "removed": list(comparison.removed),
        "form": comparison.alignment.form.summary(comparison.removed),
        "components": comparison.alignment.components,
    }


def _guessed(comparison: Comparison) -> dict[str, Any] | None:
    """Compute the RMS and largest error of the guesses in nm, of whatever order; None where nothing was guessed."""
    pixels, square, largest = 0, 0.0, 0.0
    for error in comparison.guesses():
        if error.size:
            pixels, square = pixels + error.size, square + float(error @ error)
            largest = max(largest, float(np.abs(error).max()))
    return {"pixels": pixels, "rms_nm": (square / pixels) ** 0.5, "max_abs_nm": largest} if pixels else None


def _typical(truth: NDArray[np.number]) -> float:
    """Estimate a height near the mean in nm: sums of squares about it do not cancel."""
    step = max(1, int(np.sqrt(truth.size / 10_000)))
    sample = np.asarray(truth[::step, ::step], np.float64)
    finite = sample[np.isfinite(sample)]
    return float(np.median(finite)) if finite.size else 0.0


def evaluate(
    output_path: str | Path,
    truth_path: str | Path,
    *,
    remove: str | Sequence[str] = (),
    aperture: Aperture | None = None,
    progress: bool | Events = True,
) -> dict[str, Any]:
    """Compare the map at ``output_path`` with the true heights in nm of a .npy file.

    See ``align_to_truth`` and ``error_figures``.

    Raises InputError when a file is missing or unreadable, the shapes differ, or the truth is not a 2-D array of
    numbers.
    """
    height_map = open_height_map(output_path)
    return error_figures(align_to_truth(height_map, truth_path, remove=remove, aperture=aperture, progress=progress))
