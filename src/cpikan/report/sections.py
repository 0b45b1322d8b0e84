"""The pictures and charts of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from cpikan.report import figures, numbers
from cpikan.report.content import Content, Judged, Part, Section, columns, drawing, legend
from cpikan.report.explorer import explorer
from cpikan.report.seams import SeamCheck
from cpikan.report.survey import SIDE_PIXELS

_WIDE_IN, _HALF_IN = 11.1, 5.2
_SIDE_NOTES = {
    "σ": "Standard deviation of the height of a pixel.",
    "modulation": "Amplitude of the fringes.",
    "slope": "Length of the gradient of the fitted surface.",
}


def height_sections(content: Content) -> Iterable[Section]:
    """Yield the large map of the surface; where a tilt would hide it, levelled, and then the heights as delivered."""
    gathered, lateral = content.survey, content.lateral
    flat = content.tilted
    values = gathered.levelled if flat else gathered.height
    scale = figures.height_scale(values, "height")
    figure = figures.map_figure(values, scale, lateral, width_in=_WIDE_IN, cross=True)
    tilt = f"Piston and tilt removed ({content.slope} nm per pixel along x and y). " if flat else ""
    note = f"{tilt}{_reduced(values.shape, gathered.shape)} The dashed lines mark the profiles below."
    title = "Height, levelled" if flat else "Height"
    still = drawing(figure, "height", "map of the height")
    live = explorer(content)
    if live is None:
        yield Section(title, note, [still], wide=True)
    else:
        yield Section(title, "", [live, Part("static", {**still.data, "note": note})], wide=True)
    if flat:
        every = -(-values.size // SIDE_PIXELS)
        step = max(1, round(every**0.5))
        small = gathered.height[::step, ::step]
        figure = figures.map_figure(small, figures.height_scale(small, "height"), lateral, width_in=_HALF_IN)
        drawn = drawing(figure, "delivered", "map of the height with its tilt")
        yield Section("Height, as delivered", "With piston and tilt.", [drawn])


def side_sections(content: Content) -> Iterable[Section]:
    """Yield the sections on uncertainty, modulation, slope and flags, as far as the map has them."""
    gathered, lateral = content.survey, content.lateral
    for title, values, unit, label, colours in (
        ("Uncertainty", gathered.sigma, "nm", "σ", "magma"),
        ("Modulation", gathered.modulation, "", "modulation", "cividis"),
        ("Slope", gathered.slope, "nm/px", "slope", "viridis"),
    ):
        if values is None or not np.isfinite(values).any():
            continue
        scale = figures.quantity_scale(values, unit, label, colours)
        figure = figures.map_figure(values, scale, lateral, width_in=_HALF_IN)
        name = "sigma" if label == "σ" else label
        yield Section(title, _SIDE_NOTES[label], [drawing(figure, name, f"map of {title.lower()}")])
    if gathered.flags is not None:
        figure = figures.flags_figure(gathered.flags, lateral, width_in=_HALF_IN - 0.7)
        drawn = [drawing(figure, "flags", "map of the flags"), _flag_legend(gathered.flag_shares)]
        note = "A flag on any pixel of a block colours the block; the percentages count pixels."
        yield Section("Flags", note if _is_reduced(gathered.flags.shape, gathered.shape) else "", drawn)


def _flag_legend(shares: Mapping[int, float]) -> Part:
    entries = [(figures.PLAIN_COLOUR, "no flag")]
    for flag, name in figures.FLAG_NAMES.items():
        share = shares.get(int(flag), 0.0)
        if share > 0:
            entries.append((figures.FLAG_COLOURS[flag], f"{name} {' '.join(numbers.percent(share))}"))
    return legend(entries)


def profile_section(content: Content) -> Iterable[Section]:
    """Yield the profiles of the row and the column through the centre, levelled where the map is."""
    gathered = content.survey
    row, column, kind = gathered.row, gathered.column, "as delivered"
    if content.tilted:
        height, width = gathered.shape
        row = gathered.plane.remove(height // 2, row[None])[0]
        column = column - gathered.plane.at(np.arange(height), np.full(height, width // 2))
        kind = "levelled"
    if np.isfinite(row).any() or np.isfinite(column).any():
        scale = figures.height_scale(np.concatenate([row, column]), "height")
        figure = figures.profiles_figure(row, column, scale, content.lateral, width_in=_WIDE_IN)
        note = f"Row and column through the centre, {kind}."
        if max(gathered.shape) > figures.PROFILE_POINTS:
            note += " Shaded: minimum to maximum where samples share a dot."
        yield Section("Profiles", note, [drawing(figure, "profiles", "height profiles")], wide=True)


def histogram_section(content: Content) -> Iterable[Section]:
    """Yield the histogram of the heights as delivered."""
    gathered = content.survey
    if gathered.histogram is not None:
        scale = figures.height_scale(gathered.height, "height")
        figure = figures.histogram_figure(gathered.histogram, scale, width_in=_HALF_IN)
        outside = gathered.histogram.outside
        note = f"As delivered; {outside} pixels lie outside the axis." if outside else "As delivered, all valid pixels."
        yield Section("Histogram of the height", note, [drawing(figure, "histogram", "histogram of the height")])


def error_sections(content: Content) -> Iterable[Section]:
    """Yield the sections against a truth: error map, its histogram, and whether borders of tiles or bands show."""
    error = content.survey.error
    assert error is not None
    if not np.isfinite(error.picture).any():
        return
    scale = figures.error_scale(error.picture, error.limit_nm)
    figure = figures.map_figure(error.picture, scale, content.lateral, width_in=_HALF_IN)
    note = f"Height minus truth, piston removed. Beyond ±{numbers.digits(error.limit_nm)} nm an order is wrong."
    if _is_reduced(error.picture.shape, content.survey.shape):
        note += " A block shows its right orders unless a quarter of it is wrong."
    yield Section("Error", note, [drawing(figure, "error", "map of the error")])
    if error.histogram is not None and error.histogram.counts.sum():
        edges = np.array([error.histogram.edges[0], error.histogram.edges[-1]])
        factor, unit = figures.length_unit(float(np.abs(edges).max()))
        scale = figures.Scale(edges[0] * factor, edges[1] * factor, unit, "error", factor=factor)
        figure = figures.histogram_figure(error.histogram, scale, width_in=_HALF_IN)
        drawn = drawing(figure, "errors", "histogram of the error")
        yield Section("Histogram of the error", "Right-order pixels, an even sample.", [drawn])
    if error.seams:
        figure = figures.seams_figure(error.seams, width_in=_HALF_IN)
        seams = [drawing(figure, "seams", "error steps near borders"), _seam_table(error.seams)]
        note = "Mean |error step| between neighbours by the distance to a border of tiles or bands; a seam is a peak."
        yield Section("Seams", note, seams)


def _seam_table(checks: Mapping[str, SeamCheck]) -> Part:
    return columns(
        {
            "borders": list(checks),
            "count": [str(check.borders) for check in checks.values()],
            "there": [numbers.joined(numbers.length(check.border_nm)) for check in checks.values()],
            "nearby": [numbers.joined(numbers.length(check.nearby_nm)) for check in checks.values()],
            "ratio": [f"{check.ratio:.4f}" for check in checks.values()],
            "seam": [Judged("bad", "visible") if c.visible else Judged("good", "not visible") for c in checks.values()],
        }
    )


def _is_reduced(picture: tuple[int, ...], shape: tuple[int, int]) -> bool:
    return tuple(picture) != tuple(shape)


def _reduced(picture: tuple[int, ...], shape: tuple[int, int]) -> str:
    if not _is_reduced(picture, shape):
        return "Every pixel."
    return f"Means of {-(-shape[0] // picture[0])} × {-(-shape[0] // picture[0])} pixels."
