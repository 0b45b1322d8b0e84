"""The verb ``results``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpikan.cli.verb import CommandVerb, Place
from cpikan.errors import InputError
from cpikan.option import option

_SHOWN = 40
_COLUMNS = ("name", "lot", "state", "verdict")


@dataclass(frozen=True)
class ResultsOptions:
    """Which rows are asked for, which of their figures, and what is made of them."""

    lot: tuple[str, ...] = option((), "rows of these lots alone", metavar="LOT,...")
    tool: tuple[str, ...] = option((), "rows of these tools alone", metavar="TOOL,...")
    verdict: tuple[str, ...] = option((), "pass, fail, not measured", metavar="VERDICT,...")
    figures: tuple[str, ...] = option((), "figures by name, such as wafer.bow_um,evaluate.rms_nm", metavar="NAME,...")
    export: str | None = option(
        None, "write the rows with all figures, or those that are named", metavar="FILE.csv|.parquet"
    )
    chart: str | None = option(None, "write a page of control charts of the figures", metavar="FILE.html")

    def __post_init__(self) -> None:
        if self.chart is not None and not self.figures:
            raise InputError("--chart needs --figures: name those to draw, such as wafer.bow_um")


def _run(places: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    from cpikan.fleet.results.store import ResultStore
    from cpikan.fleet.results.table import asked_rows, write_table

    options, where = ResultsOptions(**settings), places["database"]
    with closing(ResultStore.open(_database(where), new=False)) as store:
        asked = {"lot": options.lot, "tool": options.tool, "verdict": options.verdict}
        rows = asked_rows(store, asked, options.figures)
    if options.export is not None:
        write_table(rows, options.export)
    if options.chart is not None:
        from cpikan.fleet.results.page import write_trend

        write_trend(options.chart, rows, options.figures)
    shown = [{**row, "figures": {n: f["value"] for n, f in row["figures"].items()}} for row in rows]
    return {"rows": shown, "named": list(options.figures), "export": options.export, "chart": options.chart}


def _database(where: str) -> str:
    """Give the database of a batch's folder, or what is given."""
    inside = Path(where) / "results.sqlite"
    return str(inside) if "://" not in where and inside.is_file() else where


def _tell(result: dict[str, Any]) -> str:
    rows, named = result["rows"], result["named"]
    cells = [[*_COLUMNS, *named]]
    for row in rows[:_SHOWN]:
        values = [row["figures"].get(name) for name in named]
        cells.append(
            [*(str(row[name] or "-") for name in _COLUMNS), *("-" if v is None else f"{v:.6g}" for v in values)]
        )
    widths = [max(len(line[n]) for line in cells) for n in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    if len(rows) > _SHOWN:
        lines.append(f"{len(rows) - _SHOWN} more: --export FILE.csv")
    return "\n".join([*lines, *(f"written    {result[key]}" for key in ("export", "chart") if result[key])])


VERB = CommandVerb(
    (Place("database", "RESULTS", "folder of a batch, a file of SQLite, or postgresql://..."),),
    (ResultsOptions,),
    _run,
    _tell,
)
