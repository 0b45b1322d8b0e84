"""Other packages on twelve problems: same problem, same processor seconds, same seeds, one core; results/pde_peers.csv.

    python benchmarks/pde_peers.py [PROBLEM ...] [--seconds 40] [--seeds 1] [--methods NAME ...] [--resume]
    python benchmarks/pde_peers.py --check          the equations that are written in JAX against the catalogue's

What each package does stands in `peers/`: its usual network and optimizers, nothing tuned to a problem, errors on the same test
points with the clock stopped, imports, construction and JAX's compiling not timed. Beside them the default recipe, `trained`,
and a plain multilayer perceptron by self-scaled Broyden. Every solve is a process of its own with one thread. The error is that
of the worst output, or of an unknown coefficient. What is not installed is left out, and that is said; --python names another
interpreter for the packages (with NumPy, SciPy and torch, too), --add keeps other rows, --resume those that are there as well.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import csv
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.problems import NAMES

RESULTS = Path(__file__).parent / "results" / "pde_peers.csv"
COLUMNS = (
    *("problem", "method", "version", "seed", "limit_seconds", "error", "relative_l2", "coefficient_error", "best_l2"),
    *("cpu_seconds", "s_1e-2", "s_1e-4", "s_1e-6", "s_1e-8", "s_1e-10", "iterations", "parameters", "trust", "note"),
)
METHODS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {  # distribution, module, function, its last arguments
    "default": ("scaled-cpikan", "ours", "recipe", ("default",)),
    "trained": ("scaled-cpikan", "ours", "recipe", ("trained",)),
    "MLP SSBroyden": ("scaled-cpikan", "ours", "perceptron", ()),
    "DeepXDE float32": ("deepxde", "deepxde", "run", ("float32",)),
    "DeepXDE float64": ("deepxde", "deepxde", "run", ("float64",)),
    "Scimba ENG": ("scimba", "scimba", "run", ()),
    "PINA": ("pina-mathlab", "pina", "run", ()),
    "jaxKAN float32": ("jaxkan", "jaxkan", "run", ("float32",)),
    "jaxKAN float64": ("jaxkan", "jaxkan", "run", ("float64",)),
}
Row = dict[str, Any]


def worker(name: str, method: str, seconds: float, seed: int) -> Row:
    """Solve once, in this process."""
    import torch

    torch.set_num_threads(1)
    _, module, function, last = METHODS[method]
    solved: Callable[..., Row] = getattr(importlib.import_module(f"peers.{module}"), function)
    return solved(name, seconds, seed, *last)


def in_process(name: str, method: str, seed: int, given: argparse.Namespace) -> Row:
    """Solve once, in a process of its own; a note instead of figures where it fails."""
    python = sys.executable if METHODS[method][1] == "ours" else given.python
    command = [python, __file__, name, "--worker", method, "--seconds", str(given.seconds), "--seeds", str(seed)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=100 * given.seconds + 1200, check=False)
    except subprocess.TimeoutExpired:
        return {"note": "did not stop"}
    if ended.returncode:
        return {"note": f"failed: {(ended.stderr.strip().splitlines() or ['no message'])[-1][:120]}"}
    return dict(json.loads(ended.stdout.strip().splitlines()[-1]))


def versions(methods: list[str], python: str) -> dict[str, str]:
    """Find the versions of what is installed, by distribution; says what is not."""
    found: dict[str, str] = {}
    ask = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    for name in dict.fromkeys(METHODS[method][0] for method in methods):
        if name == "scaled-cpikan":
            from cpikan.version import VERSION

            found[name] = VERSION
            continue
        asked = subprocess.run([python, "-c", ask, name], capture_output=True, text=True, check=False)
        if asked.returncode:
            print(f"{name} is not installed: left out (pip install -e .[bench])", file=sys.stderr)
        else:
            found[name] = asked.stdout.strip()
    return found


def check() -> int:
    """Compare the equations in JAX with the catalogue's."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from peers.jax_equations import check as difference

    worst = {name: difference(name) for name in NAMES}
    for name, size in worst.items():
        print(f"{name:26} {size:.1e}")
    return int(max(worst.values()) > 1e-12)


def write(path: Path, rows: list[Row]) -> None:
    """Write the table in the order of problems, methods and seeds."""
    order = {name: number for number, name in enumerate((*NAMES, *METHODS))}
    rows = sorted(rows, key=lambda row: (order[row["problem"]], order[row["method"]], int(row["seed"])))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[Row]:
    """Read the rows that are there."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def key(row: Row) -> tuple[str, str, int]:
    return row["problem"], row["method"], int(row["seed"])


def measure(given: argparse.Namespace) -> int:
    """Solve what is asked for; the table is written after every solve."""
    rows = read(given.output) if given.resume or given.add else []
    installed = versions(given.methods, given.python)
    for seed in range(given.seeds):
        for name in given.problems:
            for method in given.methods:
                done = {key(row) for row in rows}
                if METHODS[method][0] not in installed or (given.resume and (name, method, seed) in done):
                    continue
                row = {"problem": name, "method": method, "seed": seed, "limit_seconds": given.seconds}
                row |= in_process(name, method, seed, given) | {"version": installed[METHODS[method][0]]}
                row = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
                rows = [one for one in rows if key(one) != (name, method, seed)] + [row]
                write(given.output, rows)
                told = f"{row.get('error', float('nan')):9.2e} {row.get('cpu_seconds', 0.0):7.2f} s"
                print(f"{name:26} {method:18} {seed} {told} {row.get('note', '')}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(NAMES))
    parser.add_argument("--seconds", type=float, default=40.0, help="processor seconds of each solve (40)")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--add", action="store_true", help="keep other rows, put these in the place of their like")
    parser.add_argument("--resume", action="store_true", help="keep all rows that are there, add those that are not")
    parser.add_argument("--python", default=sys.executable, help="interpreter for the other packages")
    parser.add_argument("--check", action="store_true", help="compare the equations in JAX with the catalogue's")
    parser.add_argument("--worker", metavar="METHOD", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.check:
        return check()
    if given.worker:
        print(json.dumps(worker(given.problems[0], given.worker, given.seconds, given.seeds)))
        return 0
    return measure(given)


if __name__ == "__main__":
    sys.exit(main())
