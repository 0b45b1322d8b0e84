"""The tables of a page: numbers, time, provenance, and the surface whose form was removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cpikan.report import numbers
from cpikan.report.content import Content, Part, Section, columns, legend, remark, table
from cpikan.report.fits import array, finite
from cpikan.surface.sums.registry import PARAMETERS

_STAGES: Mapping[str, tuple[str, str]] = {
    "seconds_read": ("read", "#0072b2"),
    "seconds_calibrate": ("calibrate", "#e69f00"),
    "seconds_demodulate": ("demodulate", "#009e73"),
    "seconds_orders": ("orders", "#cc79a7"),
    "seconds_refine": ("refine", "#d55e00"),
    "seconds_write": ("write", "#56b4e9"),
}


def numbers_section(content: Content) -> Section:
    """Make the section of surface numbers, with the figures against a truth."""
    gathered, summary = content.survey, content.part("summary")
    rows: list[tuple[str, str]] = [
        ("valid pixels", f"{gathered.raw.pixels} of {gathered.shape[0] * gathered.shape[1]}"),
        ("PV, as delivered", numbers.joined(numbers.length(gathered.raw.pv_nm))),
        ("RMS, as delivered", numbers.joined(numbers.length(gathered.raw.rms_nm))),
        ("PV, piston and tilt removed", numbers.joined(numbers.length(gathered.flat.pv_nm))),
        ("RMS, piston and tilt removed", numbers.joined(numbers.length(gathered.flat.rms_nm))),
        ("tilt along x and y", f"{content.slope} nm per pixel"),
    ]
    if gathered.sigma_median_nm is not None:
        rows.append(("median σ", numbers.joined(numbers.length(gathered.sigma_median_nm))))
    if summary.get("pv_robust_nm") is not None:
        rows.insert(2, ("PV without the outermost 0.1 %", numbers.joined(numbers.length(summary["pv_robust_nm"]))))
    if summary.get("sigma_systematic_share") is not None:
        rows.append(("of its variance, systematic", numbers.joined(numbers.percent(summary["sigma_systematic_share"]))))
    factors = summary.get("sigma_average_factors")
    if isinstance(factors, Mapping) and factors:
        shown = ", ".join(f"{k}×{k}: {_rounded(value)}" for k, value in factors.items())
        rows.append(("means of k×k pixels, times σ / k", shown))
    if summary.get("ambiguous_fraction") is not None:
        rows.append(("ambiguous orders", numbers.joined(numbers.percent(summary["ambiguous_fraction"]))))
    if summary.get("components") is not None:
        rows.append(("components", numbers.plain(summary["components"])))
    ripple = summary.get("ripple_mrad")
    if isinstance(ripple, Mapping) and ripple:
        shown = ", ".join(f"{k}× {_rounded(value)}" for k, value in ripple.items())
        rows.append(("ripple by multiple of the fringe", f"{shown} mrad"))
    if content.evaluation is not None:
        rows += _evaluation_rows(content.evaluation)
    return Section("Numbers", parts=[table(rows)])


def _rounded(value: object) -> str:
    return numbers.digits(float(value), 3) if isinstance(value, int | float) else numbers.NONE


def _evaluation_rows(found: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    coverage = found.get("coverage_95")
    rows = [
        ("error: RMS, right orders", numbers.joined(numbers.length(found.get("rms_nm")))),
        ("error: largest, right orders", numbers.joined(numbers.length(found.get("max_abs_nm")))),
        ("error: relative L2, all", numbers.plain(found.get("relative_l2"))),
        ("wrong orders", numbers.joined(numbers.percent(found.get("wrong_order_fraction")))),
        ("pixels compared", numbers.plain(found.get("pixels"))),
    ]
    if coverage is not None:
        rows.append(("truth inside 95 % interval", numbers.joined(numbers.percent(coverage))))
    return rows


def timing_section(content: Content) -> Iterable[Section]:
    """Yield the section with the time of the stages as a bar, and memory."""
    summary = content.part("summary")
    stages = {
        name: float(summary[key])
        for key, (name, _) in _STAGES.items()
        if isinstance(summary.get(key), int | float) and summary[key] > 0
    }
    if not stages:
        return
    colours = dict(_STAGES.values())
    total = sum(stages.values())
    shares = [(colours[name], 100 * seconds / total) for name, seconds in stages.items()]
    names = legend((colours[name], f"{name} {numbers.digits(seconds, 3)} s") for name, seconds in stages.items())
    rows = [(name, numbers.plain(summary[key])) for key, name in _RESOURCES.items() if summary.get(key) is not None]
    note = "Stages overlap, so their sum may exceed the wall time."
    yield Section("Time and memory", note, [Part("bar", {"shares": shares}), names, table(rows)])


_RESOURCES = {
    "seconds": "wall time / s",
    "seconds_start": "start of the program / s",
    "megapixels_per_second": "MPix/s",
    "peak_anonymous_mib": "peak memory / MiB",
    "peak_device_mib": "peak device memory / MiB",
}


_METHOD_KEYS = ("methods_used", "steps", "phase_steps_deg")


def provenance_section(content: Content) -> Iterable[Section]:
    """Yield all the document says besides the summary and the fit of the frames, which have sections of their own."""
    rows: list[tuple[str, str]] = []
    for name, value in content.document.items():
        if name == "summary":
            continue
        if isinstance(value, Mapping):
            rows += [(f"{name}: {key}", numbers.plain(item)) for key, item in value.items() if key != "frames_fit"]
        else:
            rows.append((str(name), numbers.plain(value)))
    summary = content.part("summary")
    rows += [(key, numbers.plain(summary[key])) for key in _METHOD_KEYS if key in summary]
    if rows:
        yield Section("Provenance", parts=[table(rows)], wide=True)


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
