"""The form that is taken off the map: fitted to all of it, with surface numbers of what is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.stage import Arrays, Context, FormedMap, Stage, levelled_slopes
from cpikan.storage.writers.layout import SLOPES
from cpikan.surface.apertures.aperture import Circle, ExtentScan, pupil_of
from cpikan.surface.forms.form import form_modes
from cpikan.surface.forms.grouped_form import GroupedForm, GroupedFormFit, no_form
from cpikan.surface.sums.measure import MeasureSettings, measure
from cpikan.units import pixel_aspect


@dataclass(frozen=True)
class RemoveForm(Stage):
    """Fits the terms of the setting ``remove``, a piston for each component; from here on the map is without them."""

    name: ClassVar[str] = "form"

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Fit the form and measure the surface; nothing is taken off a map without a valid pixel."""
        formed = FormedMap.of(arrays, context)
        pupil, groups = _extent(formed, context)
        if pupil is None:
            arrays.datum = no_form(groups)
            return {}
        fit = _fit(formed, context, pupil, groups)
        arrays.datum = fit
        if SLOPES in arrays.derived:
            arrays.derive(SLOPES, levelled_slopes(arrays.derived[SLOPES], fit, arrays.shape))
        formed = replace(formed, datum=fit)
        return {"form": fit.summary(context.settings.remove), "surface": _numbers(formed, context)}


def _extent(formed: FormedMap, context: Context) -> tuple[Circle | None, int]:
    """Find the pupil of the form, that of a circular mask (None: no pixel is valid), and the number of components."""
    scan, groups = ExtentScan(), 1
    for band in formed.sweep():
        name = "component" if formed.unwrapped else "height_nm"
        rows = formed.arrays.current(name)[band.start : band.stop]
        groups = max(groups, int(rows.max())) if formed.unwrapped else 1
        scan.add(band.start, rows > 0 if formed.unwrapped else np.isfinite(rows))
    if not scan.pixels:
        return None, groups
    return pupil_of(context.settings.mask) or scan.pupil(pixel_aspect(context.stack.acquisition.pixel_um)), groups


def _fit(formed: FormedMap, context: Context, pupil: Circle, groups: int) -> GroupedForm:
    """Fit the form by least squares over the map; InputError where too few pixels determine the terms."""
    terms = context.settings.remove
    modes = form_modes(terms)
    fit = GroupedFormFit(modes, pupil, groups)
    with context.progress("form") as progress:
        for band in formed.sweep():
            fit.add(band.start, *formed.with_datum(band))
            progress.advance(band.rows)
    if 0 < fit.pixels < fit.fewest:
        raise InputError(
            f"{fit.pixels} valid pixels are too few to remove {','.join(terms)} ({fit.fewest} numbers): remove fewer "
            "terms, or check the mask"
        )
    found = fit.solve()
    return found if (0, 0) in modes else found.without_piston()  # tilt alone: the mean stays


def _numbers(formed: FormedMap, context: Context) -> dict[str, Any]:
    """Compute the surface numbers of the map, its form removed."""

    def sweep() -> Iterator[tuple[int, np.ndarray]]:
        with context.progress("numbers") as progress:
            for band in formed.sweep():
                yield band.start, formed.heights(band)["height_nm"][None]
                progress.advance(band.rows)

    settings = MeasureSettings((), formed.datum.pupil, pixel_um=context.stack.acquisition.pixel_um)
    return measure(sweep, settings).surfaces[0].summary()
