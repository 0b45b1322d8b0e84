"""The map that can be looked into: its part of a page, and what is drawn from the same stored heights."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.resources import files

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from cpikan.report import figures, numbers
from cpikan.report.content import Content, Part, Section, drawing
from cpikan.report.figures import ACCENT, chart_axes
from cpikan.report.stored_map import explorer_data, polynomials, residual
from cpikan.surface.spectra.psd import Spectrum, plane_spectrum
from cpikan.units import pixel_pair

_HALF_IN = 5.2
_NAMES = {1: "plane", 2: "second order", 4: "fourth order"}


@cache
def script() -> Markup:
    """Read the script of the page."""
    text = files("cpikan.report").joinpath("templates/explorer.js").read_text(encoding="utf-8")
    return Markup(text)


def script_policy() -> Markup:
    """Give the source of scripts that the page allows: this one, by its digest."""
    return Markup("'sha256-" + base64.b64encode(sha256(str(script()).encode()).digest()).decode() + "'")


def explorer(content: Content) -> Part | None:
    """Make the part that shows the stored map; None where there is nothing to look into."""
    stored = content.survey.stored
    if stored is None or min(stored.shape) < 2 or not np.isfinite(stored).any():
        return None
    gathered = content.survey
    data = explorer_data(stored, gathered.stored_block, gathered.shape, content.lateral, gathered.sigma_median_nm)
    names = [(str(form["degree"]), f"less {_NAMES[form['degree']]}") for form in data["forms"]]
    packed = data.pop("data")
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return Part("explorer", {"data": Markup(text), "packed": packed, "forms": names, "level": content.tilted})


def residual_section(content: Content) -> Iterator[Section]:
    """Yield the picture of what a smooth form leaves: a polynomial of the fourth order, of the reduced map."""
    stored = content.survey.stored
    if stored is None or min(stored.shape) < 8:
        return
    forms = [form for form in polynomials(stored) if form["degree"] == 4]
    if not forms:
        return
    left = residual(stored, forms[0])
    step = max(1, round((left.size / 240_000) ** 0.5))
    rms = numbers.joined(numbers.length(float(np.nanstd(left))))
    figure = figures.map_figure(
        left[::step, ::step], figures.height_scale(left, "height"), content.lateral, width_in=_HALF_IN
    )
    told = f"The stored map less a polynomial of the fourth order: {rms} RMS."
    yield Section("Residual after form", told, [drawing(figure, "residual", "map of the residual after form")])


def spectrum_section(content: Content) -> Iterator[Section]:
    """Yield the spectrum over rings of equal frequency of the stored map, its plane removed."""
    stored = content.survey.stored
    if stored is None or min(stored.shape) < 16 or np.isfinite(stored).mean() < 0.05:
        return
    forms = polynomials(stored)
    left = residual(stored, forms[0]) if forms else stored
    pair = pixel_pair(content.part("acquisition").get("pixel_um"))
    rows, columns = content.survey.stored_block
    y_um, x_um = pair or (1000.0, 1000.0)  # without a size a pixel counts as a millimetre
    pixel_um = (y_um * rows, x_um * columns)
    found = plane_spectrum(left, pixel_um).rings()
    used = (found.frequency_per_mm > 0) & (found.density > 0)
    if used.sum() < 4:
        return
    note = "Power spectral density over rings of equal frequency, plane removed, Hann window."
    if rows > 1:
        note += f" Waves shorter than {2 * rows} pixels are averaged away."
    figure = _spectrum_figure(found, used, "px" if pair is None else "mm")
    yield Section("Spectrum", note, [drawing(figure, "spectrum", "power spectral density over spatial frequency")])


def _spectrum_figure(found: Spectrum, used: np.ndarray, unit: str) -> Figure:
    figure, axes = chart_axes(_HALF_IN, 2.9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(found.frequency_per_mm[used], found.density[used], color=ACCENT, linewidth=1.0)
    axes.set_xlabel(f"spatial frequency / {unit}⁻¹")
    axes.set_ylabel(f"density / nm² {unit}²")
    return figure
