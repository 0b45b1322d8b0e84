"""Figures of a benchmark: one row each, kept in a CSV; and the command line, run as a user runs it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One line of the CSV."""

    figure: str
    value: float | str
    unit: str
    target: str
    met: bool | str
    baseline: str
    note: str


def command(*arguments: object) -> tuple[dict, float]:
    """Run the command line with --json; its object and the wall time of the whole process."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cpikan", *map(str, arguments), "--json"], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"cpikan {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return json.loads(done.stdout), seconds


def keep(path: Path, rows: list[Row]) -> None:
    """Write the CSV, keeping older lines of figures that were not measured now."""
    path.parent.mkdir(exist_ok=True)
    old: dict[str, dict] = {}
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            old = {line["figure"]: line for line in csv.DictReader(file)}
    for row in rows:
        old[row.figure] = {key: str(value) for key, value in asdict(row).items()}
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(old.values())
