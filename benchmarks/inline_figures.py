"""Figures of the CSVs inside sentences and tables of the documents, and what keeps both complete.

``<!--csv:FILE:HOW[ COLUMN][;WHERE][;UNIT]-->...<!--/csv-->`` holds one figure of results/FILE.csv. HOW is ``count`` (lines), or
``value`` (of one line), ``sum``, ``mean``, ``min``, ``max``, ``median`` of COLUMN; WHERE picks lines, ``column=value`` joined
by ``&``, values as in `fnmatch`; UNIT stands behind the figure (``%`` multiplies by 100). Figures have three digits, whole
numbers all of theirs.
"""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

Line = dict[str, str]
MARKER = re.compile(r"<!--csv:(\w+):([^>]*?)-->.*?<!--/csv-->")
_HOWS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": sum,
    "mean": statistics.mean,
    "min": min,
    "max": max,
    "median": statistics.median,
}
_MARKED = re.compile(r"<!--(?:csv:|image:)?(\w+):")  # a figure in a sentence, and its CSV
_TABLE = re.compile(r"<!-- (\w+):")
_NAMED = re.compile(r"\b(\w+)\.(?:py|csv)\b")
_OWN_READERS = {"bit_gate"}  # compared by the script that writes it


def read_lines(path: Path) -> list[Line]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def figure(lines: list[Line], asked: str) -> str:
    """The figure that a marker asks for; raises ValueError where the CSV does not have it."""
    how, *more = asked.split(";")
    where, unit = [*more, "", ""][:2]
    conditions = [condition.split("=", 1) for condition in where.split("&") if condition]
    chosen = [line for line in lines if all(fnmatchcase(line[name], value) for name, value in conditions)]
    name, _, column = how.partition(" ")
    if name == "count":
        return f"{len(chosen)} {unit}".strip()
    values = [float(line[column]) for line in chosen if line[column] not in ("", "nan")]
    if not values or (name == "value" and len(values) != 1):
        raise ValueError(f"{len(values)} lines for the figure {asked!r}")
    value = values[0] if name == "value" else _HOWS[name](values)
    value *= 100 if unit == "%" else 1
    return f"{int(value) if value == int(value) else format(value, '.3g')} {unit}".strip()


def filled(text: str, results: Path) -> str:
    """A document with its figures brought up to date; raises ValueError for a marker without a figure."""
    return MARKER.sub(
        lambda match: (
            f"<!--csv:{match[1]}:{match[2]}-->{figure(read_lines(results / f'{match[1]}.csv'), match[2])}<!--/csv-->"
        ),
        text,
    )


def problems(results: Path, documents: Sequence[Path], scripts: Sequence[Path]) -> Iterator[str]:
    """Empty CSVs, CSVs that no document shows, and documents that name a measurement without a figure of it that is
    marked, one sentence each. ``scripts`` are those that fill documents."""
    texts = {path: path.read_text(encoding="utf-8") for path in documents}
    measured = {path.stem for path in results.glob("*.csv")}
    fillers = [script.read_text(encoding="utf-8") for script in scripts]
    shown = {path: {*_MARKED.findall(text)} | _tables(text, fillers, measured) for path, text in texts.items()}
    for name in sorted(measured):
        if not read_lines(results / f"{name}.csv"):
            yield f"results/{name}.csv has no line: run benchmarks/{name}.py"
        if name not in _OWN_READERS and not any(name in found for found in shown.values()):
            yield f"results/{name}.csv is read by nothing: show a figure of it in a document, or delete it"
    for path, text in texts.items():
        for name in sorted({*_NAMED.findall(text)} & measured - shown[path]):
            yield f"{path.name} names {name} and marks none of its figures: put one into <!--csv:{name}:...-->"


def _tables(text: str, fillers: Sequence[str], measured: set[str]) -> set[str]:
    """The CSVs of the tables that a script of its own puts into a document."""
    kinds = {*_TABLE.findall(text)}
    return {
        name
        for filler in fillers
        if kinds & {*_TABLE.findall(filler)}
        for name in measured
        if re.search(rf'"{name}["\.]|\b{name}\.(csv|RESULTS)|from {name} import', filler)
    }
