"""Rows of results as one table: asked for by column, written as CSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpikan.errors import InputError, need, unknown_name
from cpikan.fleet.results.store import ResultStore
from cpikan.storage.atomic import write_bytes, write_text

SUFFIXES = (".csv", ".parquet")
_HEAD = (
    "name",
    "lot",
    "wafer",
    "slot",
    "tool",
    "state",
    "verdict",
    "ended",
    "seconds",
    "frames_sha256",
    "map",
    "source",
    "reason",
)
_UNSAFE = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute such text


def asked_rows(
    store: ResultStore, where: Mapping[str, Sequence[str]], figures: Sequence[str], most: int | None = None
) -> list[dict[str, Any]]:
    """Read the rows that are asked for, the newest ``most`` of them, with their figures by name; all where none is named.

    Raises InputError for a figure that no row has, with the nearest name.
    """
    rows = store.wafers(**{name: values for name, values in where.items() if values}, most=most)
    found = store.figures([row["key"] for row in rows], figures)
    there = {name for one in found.values() for name in one}
    for name in figures:
        if rows and name not in there:
            every = {n for one in store.figures([row["key"] for row in rows]).values() for n in one}
            raise unknown_name("figure", name, sorted(every))
    return [row | {"figures": found[row["key"]]} for row in rows]


def write_table(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write rows, a column for each of their figures, to a .csv or .parquet file; InputError for any other."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"table {path} ends in {suffix or 'nothing'}: give a name that ends in .csv or .parquet")
    names = sorted({name for row in rows for name in row["figures"]})
    if suffix == ".csv":
        _write_csv(rows, names, Path(path))
    else:
        _write_parquet(rows, names, Path(path))


def _write_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_HEAD, *names])
    for row in rows:
        values = [row["figures"].get(name, {}).get("value") for name in names]
        writer.writerow(
            [*(_cell(row[name]) for name in _HEAD), *("" if value is None else repr(value) for value in values)]
        )
    write_text(path, text.getvalue())


def _write_parquet(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    need("pyarrow", "cluster", "a table in Parquet")
    import pyarrow as pa
    from pyarrow import parquet

    heads = {
        name: pa.array([row[name] for row in rows], pa.float64() if name == "seconds" else pa.string())
        for name in _HEAD
    }
    figures = {
        name: pa.array([row["figures"].get(name, {}).get("value") for row in rows], pa.float64()) for name in names
    }
    data = io.BytesIO()
    parquet.write_table(pa.table({**heads, **figures}), data)
    write_bytes(path, data.getvalue())


def _cell(value: Any) -> str:
    text = "" if value is None else repr(value) if isinstance(value, float) else str(value)
    return f"'{text}" if text.startswith(_UNSAFE) else text
