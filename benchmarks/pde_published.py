"""The nine published problems of `own_problems.published` by recipes and by their networks; writes results/pde_published.csv.

    python benchmarks/pde_published.py [PROBLEM ...] [--recipes default trained windows] [--seeds 1] [--seconds 600] [--resume]
    python benchmarks/pde_published.py --recipes "RGA-KAN float32" "RGA-KAN float64" [--python INTERPRETER]
    python benchmarks/pde_published.py --references      how far references of other resolution are off; pde_references.csv

One core, float64, `seconds` of the processor for each solve. Recipe `windows` is for evolutions with one axis of space; others
are left out. RGA-KAN is the published network by its published settings, of the package jaxkan (`peers/rgakan.py`), in a
process of its own of the interpreter that has it. Lines of what is solved anew replace those that are there; --resume keeps
them.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import torch

from cpikan.errors import InputError
from own_problems.published import PROBLEMS, refined
from pde_trained import FIELDS, row

RESULTS = Path(__file__).parent / "results"
Row = dict[str, object]
_NETWORK = "RGA-KAN "


def read(path: Path) -> list[Row]:
    """Read the rows that are there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [dict(line) for line in csv.DictReader(file)]


def write(path: Path, rows: list[Row], fields: tuple[str, ...]) -> None:
    """Write rows in the order of problems."""
    order = [*PROBLEMS, "kdv", "navier-stokes"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda one: order.index(str(one["problem"]))))


def key(one: Row) -> tuple[str, str, int]:
    return str(one["problem"]), str(one["recipe"]), int(str(one["seed"]))


def solved(name: str, recipe: str, seed: int, given: argparse.Namespace) -> Row:
    """Solve once: by a recipe here, by the published network in a process of its own."""
    if not recipe.startswith(_NETWORK):
        return row(PROBLEMS[name](name), recipe, seed, given.seconds) | {"problem": name}
    command = [given.python, __file__, name, "--worker", recipe.removeprefix(_NETWORK), "--seeds", str(seed)]
    ended = subprocess.run([*command, "--seconds", str(given.seconds)], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise InputError(f"it failed: {(ended.stderr.strip().splitlines() or ['no message'])[-1][:200]}")
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    if "relative_l2" not in found:
        raise InputError(found["note"])
    made = {"relative_l2": f"{found['relative_l2']:.3g}", "processor_s": f"{found['cpu_seconds']:.1f}"}
    made |= {"steps": found["iterations"], "parameters": found["parameters"]}
    return {"problem": name, "recipe": recipe, "seed": seed, **made}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--recipes", nargs="+", default=["default", "trained", "windows"])
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--seconds", type=float, default=600.0, help="processor seconds of each solve (600)")
    parser.add_argument("--resume", action="store_true", help="keep the lines that are there")
    parser.add_argument("--references", action="store_true", help="compare references of two resolutions")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has jaxkan")
    parser.add_argument("--worker", metavar="PRECISION", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "pde_published.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.worker:
        from peers.rgakan import run

        print(json.dumps(run(given.problems[0], given.seconds, given.seeds, given.worker)))
        return 0
    if given.references:
        found = [{"problem": name, "difference": f"{size:.2g}"} for name, size in refined().items()]
        write(RESULTS / "pde_references.csv", found, ("problem", "difference"))
        print(found)
        return 0
    rows = read(given.output)
    for seed in range(given.seeds):
        for name in given.problems:
            for recipe in given.recipes:
                if given.resume and (name, recipe, seed) in map(key, rows):
                    continue
                try:
                    found = solved(name, recipe, seed, given)
                except InputError as error:
                    print(f"{name} {recipe}: {error}", file=sys.stderr)
                    continue
                found |= {"limit_s": given.seconds}
                rows = [one for one in rows if key(one) != key(found)] + [found]
                print(found, flush=True)
                write(given.output, rows, FIELDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
