"""Surface numbers of maps that arrive in bands: form removed, everything summed, nothing held."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cpikan.errors import InputError, check_type
from cpikan.masked import without_mask
from cpikan.surface.apertures.aperture import Circle, circle_around
from cpikan.surface.forms.form import Form, ModeSums, check_form_terms, fitted_modes, form_modes, surface_rows
from cpikan.surface.forms.zernike import Mode, ZernikeBasis, ansi_index
from cpikan.surface.sums.registry import Sums, SurfaceParameters
from cpikan.surface.sums.tallies import PVR_MODES, AreaTally, FitTally, HeightTally, SlopeTally
from cpikan.surface.sums.tally_kernels import combine
from cpikan.units import PixelUm, pixel_aspect, pixel_pair

FloatArray = NDArray[np.float64]

Sweep = Callable[[], Iterable[tuple[int, NDArray[np.floating]]]]


@dataclass(frozen=True)
class MeasureSettings:
    """What to remove, where, and which surfaces to make numbers of.

    ``combinations`` has one row per surface and one column per map: ((1, 0), (0, 1), (1, -1)) are two maps and their
    difference. Without a ``pupil`` it is the circle around the valid pixels, round on the pixels that ``pixel_um`` describes.
    """

    remove: tuple[str, ...] = ("piston",)
    pupil: Circle | None = None
    combinations: tuple[tuple[float, ...], ...] = ((1.0,),)
    pixel_um: PixelUm | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "remove", check_form_terms(self.remove))
        if self.pupil is not None:
            check_type("pupil", self.pupil, Circle, "a Circle")
        if not self.combinations or not all(len(row) == len(self.combinations[0]) > 0 for row in self.combinations):
            raise InputError(f"combinations {self.combinations}: give one row per surface, each with a number per map")
        if self.pixel_um is not None and pixel_pair(self.pixel_um) is None:
            raise InputError(f"pixel size {self.pixel_um} um is not positive: give one above zero, or (y, x)")


@dataclass(frozen=True)
class Measurement:
    """Numbers and removed form of each surface, on the pixels of ``pupil`` that are valid in all maps."""

    pupil: Circle
    surfaces: tuple[SurfaceParameters, ...]
    forms: tuple[Form, ...]


def measure(sweep: Sweep, settings: MeasureSettings | None = None) -> Measurement:
    """Measure surface numbers of maps that ``sweep()`` yields in bands (first row, heights in nm, (maps, rows, W)).

    Bands come from top to bottom; a pixel counts where all maps are finite. The data are swept three times (twice with
    a pupil given): extent, normal equations, numbers. Memory is that of a band. Raises InputError when fewer pixels are
    valid than terms are fitted.
    """
    settings = settings or MeasureSettings()
    masks = ((start, _valid(heights)) for start, heights in sweep())
    pupil = settings.pupil or circle_around(masks, pixel_aspect(settings.pixel_um))
    removed = form_modes(settings.remove)
    fitted = fitted_modes(removed)
    modes = tuple(sorted({*fitted, *PVR_MODES}, key=ansi_index))
    combinations = np.array(settings.combinations, np.float64)
    sums = ModeSums(modes, pupil, combinations.shape[1])
    for start, heights in sweep():
        sums.add(start, heights)
    if sums.pixels < max(1, len(fitted)):
        raise InputError(
            f"{sums.pixels} valid pixels are too few for a form of {len(fitted)} terms: remove fewer, or check the mask"
        )
    found = _solve(sums, removed, fitted, combinations)
    return _tally(sweep, settings, found, combinations)


def surface_parameters(
    height_nm: Float[np.ndarray, "h w"], settings: MeasureSettings | None = None
) -> SurfaceParameters:
    """Measure surface numbers of a whole map (H, W) in nm, NaN and what a masked array masks ignored; see ``measure``."""
    height_nm = without_mask(height_nm)
    if np.ndim(height_nm) != 2:
        raise InputError(f"a height map has two dimensions, got {np.ndim(height_nm)}: give an array of shape (H, W)")
    return measure(lambda: [(0, height_nm[None])], settings).surfaces[0]


@dataclass(frozen=True)
class _Solved:
    """Coefficients (surfaces, modes) of the form to remove and of the fit for PVr, and the mean that then remains."""

    sums: ModeSums
    form: FloatArray
    fit: FloatArray
    mean_nm: FloatArray
    removed: tuple[Mode, ...]


def _valid(maps: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell where all maps (maps, rows, W) are finite, (rows, W)."""
    valid: NDArray[np.bool_] = np.isfinite(maps).all(axis=0)
    return valid


def _solve(sums: ModeSums, removed: tuple[Mode, ...], fitted: tuple[Mode, ...], combinations: FloatArray) -> _Solved:
    form = sums.solve(fitted)
    keep = np.array([mode in removed for mode in sums.basis.modes])
    form = combinations @ np.where(keep, form, 0.0)
    right = combinations @ sums.right - form @ sums.normal  # the sums of what is left
    fit = sums.solve(PVR_MODES, right)
    # the first mode is the piston, 1 everywhere: its sums are the mean
    return _Solved(sums, form, fit, right[:, 0] / sums.normal[0, 0], removed)


def _tally(sweep: Sweep, settings: MeasureSettings, found: _Solved, combinations: FloatArray) -> Measurement:
    pupil, basis, count = found.sums.pupil, found.sums.basis, len(combinations)
    heights = [HeightTally(float(mean)) for mean in found.mean_nm]
    slopes, fits = [SlopeTally() for _ in heights], [FitTally() for _ in heights]
    areas = [AreaTally(settings.pixel_um) for _ in heights]
    for start, maps in sweep():
        valid = _valid(maps) & pupil.inside(start, start + maps.shape[1], maps.shape[2])
        surfaces = surface_rows(basis, pupil, np.concatenate([found.form, found.fit]), start, valid)
        for k in range(count):
            rest = np.empty(valid.shape)
            combine(maps, combinations[k], valid, surfaces[k], rest)
            heights[k].add(rest)
            slopes[k].add(start, rest)
            fits[k].add(rest, surfaces[count + k])
            areas[k].add(start, rest)
    tallies = zip(heights, slopes, fits, areas, strict=True)
    numbers = [SurfaceParameters.of(Sums(*sums, settings.pixel_um)) for sums in tallies]
    removed = ZernikeBasis(found.removed, pupil.obscuration)
    columns = [basis.modes.index(mode) for mode in found.removed]
    forms = [Form(pupil, removed, tuple(float(value) for value in row[columns])) for row in found.form]
    return Measurement(pupil, tuple(numbers), tuple(forms))
