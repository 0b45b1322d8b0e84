"""Surface numbers of a map whose form was removed, and the form that went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cpikan.report import numbers
from cpikan.report.content import Content, Part, Section, columns, remark, table
from cpikan.report.fits import array, finite
from cpikan.surface.registry import PARAMETERS

_MODES = {
    "Z(0,0)": "piston",
    "Z(1,1)": "tilt along x",
    "Z(1,-1)": "tilt along y",
    "Z(2,0)": "power",
    "Z(2,2)": "astigmatism 0°",
    "Z(2,-2)": "astigmatism 45°",
    "Z(3,1)": "coma along x",
    "Z(3,-1)": "coma along y",
    "Z(3,3)": "trefoil 0°",
    "Z(3,-3)": "trefoil 30°",
    "Z(4,0)": "spherical",
}
_LISTED = 60


def surface_sections(content: Content) -> Iterator[Section]:
    """Yield the numbers after the form was removed, and the form's coefficients; nothing where no form was removed."""
    summary = content.part("summary")
    surface, form = summary.get("surface"), summary.get("form")
    if isinstance(surface, Mapping):
        yield Section("Surface", "All valid pixels, after the form was removed.", [table(_rows(surface))])
    if isinstance(form, Mapping):
        yield Section("Removed form", " ".join(_about(form)), list(_coefficients(form)))


def _rows(surface: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every parameter of the table that has a value; slopes in mrad where the pixel size is known."""
    known = any(finite(surface.get(f"slope_rms_{axis}_mrad")) is not None for axis in "xy")
    for name, parameter in PARAMETERS.items():
        value = finite(surface.get(name))
        if parameter.label is None or value is None or (known and parameter.unit == "nm per pixel"):
            continue
        if parameter.unit == "nm":
            yield parameter.label, numbers.joined(numbers.length(value))
        elif parameter.unit:
            yield parameter.label, f"{numbers.digits(value)} {parameter.unit}"
        else:
            yield parameter.label, numbers.plain(surface[name])


def _about(form: Mapping[str, Any]) -> Iterator[str]:
    terms = form.get("removed")
    if isinstance(terms, list | tuple) and terms:
        yield f"Taken off: {', '.join(map(str, terms))}."
    circle = array(form.get("circle_pixels"), (None,))
    if circle is not None and circle.size in (4, 5):
        x, y, radius, inner = circle[:4]
        hole = f", hole {inner:.1f} px" if inner > 0 else ""
        columns_apart = f" along the rows, which lie {circle[4]:.4g} px apart" if circle.size == 5 else ""
        yield f"Pupil: centre x {x:.1f}, y {y:.1f}, radius {radius:.1f} px{hole}{columns_apart}."
    if form.get("normalisation"):
        yield f"Zernike terms of {form['normalisation']}."
    pistons = form.get("pistons_nm")
    if isinstance(pistons, list | tuple) and len(pistons) > 1:
        yield f"{len(pistons)} components had a piston of their own."


def _coefficients(form: Mapping[str, Any]) -> Iterator[Part]:
    found = form.get("coefficients_nm")
    if not isinstance(found, Mapping) or not found:
        return
    listed = list(found.items())[:_LISTED]
    noll = form.get("noll")
    index = noll if isinstance(noll, Mapping) else {}
    yield columns(
        {
            "term": [f"{mode} {_MODES.get(str(mode), '')}" for mode, _ in listed],
            "Noll": [numbers.plain(index[mode]) if mode in index else "" for mode, _ in listed],
            "coefficient": [numbers.joined(numbers.length(value)) for _, value in listed],
        }
    )
    if len(found) > _LISTED:
        yield remark(f"And {len(found) - _LISTED} more terms.")
