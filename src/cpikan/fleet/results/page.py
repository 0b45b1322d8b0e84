"""The page of a figure over many wafers: its control charts, its capability, and the wafers that stand out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpikan.errors import InputError
from cpikan.fleet.figures import unit_of
from cpikan.fleet.results.control import Chart, Control, control
from cpikan.report import numbers
from cpikan.report.content import Section, columns, drawing, table
from cpikan.report.figures import ACCENT, INK, SECOND, chart_axes
from cpikan.report.html import render_page
from cpikan.report.place import check_page
from cpikan.storage.atomic import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LABELS = 24
_SHOWN = 40  # of the wafers that failed


def write_trend(path: str | Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Path:
    """Write one page about figures of rows, in the order in which they ended; returns its path.

    Raises InputError where no figure was measured on at least two wafers, and for a path that is no page's.
    """
    checked = check_page(path)
    found = {name: _control_of(rows, name) for name in names}
    drawn = {name: one for name, one in found.items() if one is not None}
    if not drawn:
        raise InputError(f"{', '.join(names)}: measured on fewer than two wafers, of which no chart can be drawn")
    lots = {row["lot"] for row in rows if row["lot"]}
    lead = f"{len(rows)} wafers" + (f" of {len(lots)} lots" if lots else "")
    told = [f"{name}: measured on fewer than two wafers" for name in names if name not in drawn]
    keys = [(verdict, str(sum(row["verdict"] == verdict for row in rows)), "wafers") for verdict in ("pass", "fail")]
    sections = [section for name, one in drawn.items() for section in _sections(name, one, rows)]
    write_text(checked, render_page("Wafers", lead, told, keys, [*sections, *_failed(rows)]))
    return checked


def _control_of(rows: Sequence[Mapping[str, Any]], name: str) -> Control | None:
    seen = [(row, _value(row, name)) for row in rows]
    there = [(row, value) for row, value in seen if value is not None]
    return control([value for _, value in there], [row["name"] for row, _ in there], [row["lot"] for row, _ in there])


def _value(row: Mapping[str, Any], name: str) -> float | None:
    value: float | None = row["figures"].get(name, {}).get("value")
    return value


def _sections(name: str, found: Control, rows: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    low, high = _limits(rows, name)
    parts = [
        drawing(_figure(chart, label, limits), f"chart{_plain(name)}{n}", f"control chart of {name}: {label}")
        for n, (chart, label, limits) in enumerate(
            ((found.location, _labelled(name), (low, high)), (found.spread, "range", (None, None)))
        )
    ]
    note = (
        f"Chart of {found.kind}; dashed: three standard deviations; marked: points outside, and from the eighth in a row on "
        "one side of the mean."
    )
    yield Section(name, note, parts, wide=True)
    able = found.capability(low, high)
    told = [(label, value) for label, value in (("Cp", able.cp), ("Cpk", able.cpk)) if value is not None]
    facts = [("mean", found.location.centre), ("standard deviation within a lot", found.sigma), *told]
    limits = [(label, value) for label, value in (("lower limit", low), ("upper limit", high)) if value is not None]
    cells = [(label, numbers.digits(value)) for label, value in [*facts, *limits]]
    outside = [found.location.labels[n] for n in found.location.outside]
    yield Section(f"{name}: figures", "", [table([*cells, ("outside", ", ".join(outside[:_SHOWN]) or "none")])])


def _limits(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float | None, float | None]:
    """Give the limits that the last wafer with this figure was judged by."""
    last = next(row["figures"][name] for row in reversed(rows) if name in row["figures"])
    return last["low"], last["high"]


def _figure(chart: Chart, label: str, limits: tuple[float | None, float | None]) -> Figure:
    figure, axes = chart_axes(9.0, 2.6)
    x = list(range(len(chart.values)))
    axes.plot(x, chart.values, "-o", color=ACCENT, markersize=3, linewidth=0.9)
    axes.axhline(chart.centre, color=INK, linewidth=0.6)
    for bound in (chart.low, chart.high):
        axes.step(x, bound, where="mid", color=INK, linestyle="--", linewidth=0.8)
    marked = sorted({*chart.outside, *chart.runs})
    axes.plot(marked, chart.values[marked], "s", color=SECOND, markersize=6, fillstyle="none")
    for limit in limits:
        if limit is not None:
            axes.axhline(limit, color=SECOND, linewidth=1)
    step = max(1, -(-len(x) // _MOST_LABELS))
    axes.set_xticks(
        x[::step], chart.labels[::step], rotation=45 if len(x) > 6 else 0, ha="right" if len(x) > 6 else "center"
    )
    axes.set_ylabel(label)
    return figure


def _failed(rows: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    bad = [row for row in rows if row["verdict"] == "fail" or row["state"] != "done"]
    if not bad:
        return
    cells: dict[str, list[str]] = {"wafer": [], "lot": [], "why": []}
    for row in bad[:_SHOWN]:
        missed = {name: figure["value"] for name, figure in row["figures"].items() if figure["verdict"] == "fail"}
        why = ", ".join(f"{name} = {numbers.digits(value)}" for name, value in missed.items()) or row["reason"]
        for column, text in (("wafer", row["name"]), ("lot", row["lot"] or ""), ("why", why or "")):
            cells[column].append(text)
    more = f"{len(bad)} in all, the first {_SHOWN} are shown." if len(bad) > _SHOWN else ""
    yield Section("Failed", more, [columns(cells)], wide=True)


def _labelled(name: str) -> str:
    unit = unit_of(name)
    return f"{name.rsplit('.', 1)[-1]}" + (f" / {unit}" if unit not in ("", "1") else "")


def _plain(name: str) -> str:
    return "".join(letter for letter in name if letter.isalnum())
