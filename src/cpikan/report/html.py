"""One self-contained HTML page about a height map: pictures, numbers, timing, provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from cpikan.pipeline.maps.evaluate import align_to_truth, error_figures
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.report import numbers
from cpikan.report.advice import Told, advised
from cpikan.report.content import Content, Section
from cpikan.report.explorer import residual_section, script_policy, spectrum_section
from cpikan.report.explorer import script as explorer_script
from cpikan.report.frames import frame_sections
from cpikan.report.place import check_page
from cpikan.report.sections import error_sections, height_sections, histogram_section, profile_section, side_sections
from cpikan.report.survey import survey
from cpikan.report.tables import numbers_section, provenance_section, surface_sections, timing_section
from cpikan.storage.atomic import write_text
from cpikan.streaming.events import Events
from cpikan.units import format_length


def write_report(
    path: Path | str,
    height_map: HeightMap,
    *,
    truth: Path | str | NDArray[np.number] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    progress: bool | Events = True,
) -> Path:
    """Write one HTML page about a height map, below 3 MB, without outside references; returns its path.

    The map is read in bands, so memory does not grow with it; what it lacks (sigma, flags, times) is left out. With
    ``truth``, a .npy file or array of heights in nm (H, W), the page shows the error, checks the seams, and gives the
    figures of ``evaluation`` (computed here when not given). Raises InputError for an unfit truth, and for a path that
    `check_page` refuses.
    """
    path = check_page(path)
    comparison = None
    if truth is not None:
        removed = (evaluation or {}).get("removed") or ()
        comparison = align_to_truth(height_map, truth, remove=removed, progress=progress)
        evaluation = error_figures(comparison) if evaluation is None else evaluation
    name = Path(height_map.path).name
    content = Content(name, height_map.document, survey(height_map, comparison, progress=progress), evaluation)
    write_text(path, render(content))
    return path


def render(content: Content) -> str:
    """Render the page of a map as HTML text."""
    found, names, notes = (content.part("summary").get(key) for key in ("warnings", "warning_names", "notes"))
    return render_page(
        content.name,
        _lead(content),
        advised(list(map(numbers.plain, found)), names) if isinstance(found, list | tuple) else [],
        list(_keys(content)),
        list(_sections(content)),
        notes=list(map(numbers.plain, notes)) if isinstance(notes, list | tuple) else [],
    )


def render_page(
    title: str,
    lead: str,
    warnings: Sequence[str | Told],
    keys: Sequence[tuple[str, str, str]],
    sections: Sequence[Section],
    *,
    notes: Sequence[str] = (),
) -> str:
    """Render a page as HTML text; whatever a document says is escaped by the templates.

    A page whose sections hold a map to look into has a script, allowed by its digest alone; any other page has none.
    """
    script = any(part.kind == "explorer" for section in sections for part in section.parts)
    environment = Environment(
        loader=PackageLoader("cpikan.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=title,
        lead=lead,
        warnings=[one if isinstance(one, Told) else Told(one) for one in warnings],
        notes=notes,
        keys=keys,
        sections=sections,
        script=explorer_script() if script else "",
        script_policy=script_policy(),
    )


def _lead(content: Content) -> str:
    height, width = content.survey.shape
    acquisition, summary = content.part("acquisition"), content.part("summary")
    wavelengths = [
        format_length(float(value)).replace(" um", " µm") for value in acquisition.get("wavelengths_nm") or ()
    ]
    megapixels = height * width / 1e6
    size = f"{megapixels:.1f}" if megapixels >= 1 else f"{megapixels:.3f}"
    parts = [f"{height} × {width} pixels ({size} MPix)", ", ".join(wavelengths)]
    if summary.get("method"):
        parts.append(f"method {summary['method']}")
    if summary.get("device"):
        parts.append(f"on {summary['device']}")
    return " · ".join(part for part in parts if part)


def _keys(content: Content) -> Iterable[tuple[str, str, str]]:
    """Yield the figures at the top of the page: name, digits, unit."""
    gathered, summary = content.survey, content.part("summary")
    flat = content.tilted
    found = gathered.flat if flat else gathered.raw
    suffix = ", levelled" if flat else ""
    valid = gathered.raw.pixels / (gathered.shape[0] * gathered.shape[1])
    yield ("valid pixels", *numbers.percent(valid))
    yield (f"PV{suffix}", *numbers.length(found.pv_nm))
    yield (f"RMS{suffix}", *numbers.length(found.rms_nm))
    if gathered.sigma_median_nm is not None:
        yield ("median σ of a pixel", *numbers.length(gathered.sigma_median_nm))
    speed = summary.get("megapixels_per_second")
    if isinstance(speed, int | float):
        yield "speed", numbers.digits(float(speed), 3), "MPix/s"
    if content.evaluation is not None:
        yield ("RMS error", *numbers.length(content.evaluation.get("rms_nm")))
        yield ("wrong orders", *numbers.percent(content.evaluation.get("wrong_order_fraction")))


def _sections(content: Content) -> Iterable[Section]:
    gathered = content.survey
    if gathered.raw.pixels:
        yield from height_sections(content)
    else:
        yield Section("Height", "No pixel is valid: there is nothing to draw.", wide=True)
    yield from side_sections(content)
    if gathered.raw.pixels:
        yield from profile_section(content)
    if gathered.error is not None:
        yield from error_sections(content)
    yield from residual_section(content)
    yield from spectrum_section(content)
    yield from histogram_section(content)
    yield numbers_section(content)
    yield from surface_sections(content)
    yield from frame_sections(content)
    yield from timing_section(content)
    yield from provenance_section(content)
