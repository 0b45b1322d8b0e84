"""Solve every problem of the catalogue with the default recipe by two builds, A B A B: errors and processor seconds.

    python benchmarks/pde_ab.py --old OLD/src [--new NEW/src] [--rounds 2] [--seconds 30] [--only NAME ...] [--csv FILE]

Each solve is a process of its own on one thread; processor seconds are those of the solve, after imports. Errors below 1e-11
are rounding and are not compared. results/pde_ab.csv keeps every solve; the last lines say what the builds differ in.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CSV = ROOT / "benchmarks" / "results" / "pde_ab.csv"
ROUNDING = 1e-11
_CHILD = """
import json, sys, time
import torch
import cpikan
torch.set_num_threads(1)
name, seconds = sys.argv[1:]
problem = cpikan.problem(name)
begun = time.process_time()
found = cpikan.solve(problem, settings=cpikan.SolveSettings(seconds=float(seconds)))
told = {"processor_s": time.process_time() - begun}
print(json.dumps(told | {key: found.summary()[key] for key in ("relative_l2", "iterations", "stop_reason")}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="folder that holds the older package")
    parser.add_argument("--new", type=Path, default=ROOT / "src")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="time limit of a solve")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    builds = {"old": given.old.resolve(), "new": given.new.resolve()}
    rows = []
    for name in given.only or _names(builds["old"]):
        for turn in range(given.rounds):
            for build in ("old", "new"):
                found = _solve(builds[build], name, given.seconds)
                rows.append({"problem": name, "round": turn, "build": build, **found})
                print(rows[-1], flush=True)
    with given.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    _tell(rows)


def _names(source: Path) -> list[str]:
    code = "import json, cpikan; print(json.dumps(list(cpikan.problems())))"
    return [str(name) for name in json.loads(_python(source, code))]


def _solve(source: Path, name: str, seconds: float) -> dict[str, object]:
    found: dict[str, object] = json.loads(_python(source, _CHILD, name, str(seconds)))
    return found


def _python(source: Path, code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def _tell(rows: list[dict[str, object]]) -> None:
    """Say where the errors differ by more than rounding, and the ratio of all processor seconds."""
    seconds = dict.fromkeys(("old", "new"), 0.0)
    for name in dict.fromkeys(str(row["problem"]) for row in rows):
        errors = {}
        for build in seconds:
            chosen = [row for row in rows if row["problem"] == name and row["build"] == build]
            errors[build] = statistics.median(float(str(row["relative_l2"])) for row in chosen)
            seconds[build] += min(float(str(row["processor_s"])) for row in chosen)
        if max(errors.values()) > ROUNDING and errors["new"] != errors["old"]:
            print(f"{name}: error {errors['old']:.3g} -> {errors['new']:.3g} ({errors['new'] / errors['old']:.2f} x)")
    print(f"processor seconds {seconds['old']:.1f} -> {seconds['new']:.1f} ({seconds['new'] / seconds['old']:.3f} x)")


if __name__ == "__main__":
    main()
