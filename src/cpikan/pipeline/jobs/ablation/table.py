"""Table: the rows of finished runs in a CSV, one added as each ends, so that a killed ablation goes on behind the last."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cpikan.errors import InputError, ResumeError
from cpikan.pipeline.jobs.ablation.run import COLUMNS, Limits
from cpikan.storage.atomic import full_disk_named, write_text

Row = Mapping[str, str]


class Table:
    """The rows of ``path``; begins it where it is not there, or with ``overwrite``.

    Raises InputError for a file that is there without ``resume`` or ``overwrite``, and ResumeError for rows of other limits.
    """

    def __init__(self, path: Path, limits: Limits, *, resume: bool = False, overwrite: bool = False) -> None:
        if resume and overwrite:
            raise InputError("resume and overwrite exclude each other: give one of them")
        if path.exists() and not (resume or overwrite):
            raise InputError(f"{path} is there: give another folder, or resume or overwrite")
        self.path = path
        self.rows: list[Row] = _whole_rows(path, limits) if resume and path.exists() else []
        write_text(path, csv_text(COLUMNS, self.rows))  # without a row that a kill cut short

    def keys(self) -> set[tuple[str, str, str]]:
        """Name the runs that are there."""
        return {(row["problem"], row["part"], row["seed"]) for row in self.rows}

    def add(self, row: Row) -> None:
        """Write a row to the disk."""
        text = csv_text((), [row])
        with full_disk_named(self.path, len(text)), open(self.path, "a", newline="", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)


def csv_text(head: Iterable[str], rows: Iterable[Mapping[str, object]], columns: Iterable[str] = COLUMNS) -> str:
    """Write rows as CSV, below ``head`` where that has names."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns), lineterminator="\n")
    if list(head):
        writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _whole_rows(path: Path, limits: Limits) -> list[Row]:
    """Read the rows that are whole; the last may have been cut short."""
    text = path.read_text(encoding="utf-8")
    lines = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
    if lines and set(lines[0]) != set(COLUMNS):
        raise ResumeError(f"{path} is no table of an ablation: give another folder")
    for row in lines:
        found = {name: row[name] for name in limits.row()}
        if found != limits.row():
            raise ResumeError(
                f"{path} holds runs of {_told(found)}, not of {_told(limits.row())}: give those, or another folder"
            )
    return list(lines)


def _told(limits: Row) -> str:
    steps = f", {limits['limit_steps']} steps" if limits["limit_steps"] else ""
    return f"{limits['limit_s']} s{steps}, plain {limits['plain']}"
