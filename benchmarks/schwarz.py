"""Schwarz methods: corrections and time as boxes become more, with the coarse level and without it, beside nested dissection.

    python benchmarks/schwarz.py [SYSTEM ...] [--methods additive ...]

Systems are ten modes on 2x2 to 32x32 boxes of `poisson-2d`, and other problems on 4 x 4 boxes or graded knots; coupled by
values and fluxes, one core, float64; of what is not linear the first step. Lines of these systems and methods in
results/schwarz.csv are replaced.
`iterations` are corrections until rounding is reached (or 400 and the end of a run of GMRES); `processor_s` is elimination of
the boxes, set-up and solve, without the rows that all have in common; `difference` is that of all coefficients from nested
dissection, relative.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch

from cpikan.learning.schwarz import VARIANTS, Schwarz
from cpikan.learning.strategies.coarse_space import CoarseSpace
from cpikan.learning.strategies.dissection import solve_dissected
from cpikan.learning.strategies.interface_system import InterfaceSystem
from cpikan.learning.strategies.patchwork import Patchwork
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.catalogue import problem
from subdomains import LAYERED, conductors, layer

CSV = Path(__file__).parent / "results" / "schwarz.csv"
FIELDS = ("case", "system", "boxes", "method", "coarse", "unknowns", "iterations", "difference", "processor_s")
DAMPING, MOST = 1e-15, 400
WITHOUT = 64  # boxes up to which the coarse level is left out too
GRIDS = {f"{n}x{n}": (lambda: problem("poisson-2d"), Subdomains(n, "cpinn"), 10) for n in (2, 4, 8, 16, 32)}
OTHERS = {
    "conductors": (conductors, Subdomains(4, "cpinn"), 7),
    "disc": (lambda: problem("poisson-disc"), Subdomains(4, "cpinn"), 7),
    "kovasznay": (lambda: problem("kovasznay"), Subdomains(4, "cpinn"), 6),
    "waves": (lambda: problem("wave"), Subdomains(4, "cpinn"), 7),
    "layer": (layer, Subdomains(coupling="cpinn", knots=LAYERED), 8),
    "helmholtz": (lambda: problem("helmholtz-2d-6-6"), Subdomains(6, "cpinn"), 7),
}
SYSTEMS = {**GRIDS, **OTHERS}


def lines(name: str, methods: Sequence[str]) -> Iterator[dict[str, object]]:
    """Solve the same system by methods, and by dissection, which they are compared with."""
    posed, cut, modes = SYSTEMS[name]
    given = posed()
    patches = Patchwork(given, cut, (modes,) * given.dimension, torch.ones(given.outputs, dtype=torch.float64))
    rows, boxes = [one.rows() for one in patches.sets()], len(patches.places)
    begun = time.process_time()
    direct = solve_dissected(rows, patches.places, DAMPING)
    yield line(name, boxes, "dissection", "", direct.numel(), "", "", time.process_time() - begun)
    for variant in methods:
        for coarse in ("yes", "no") if name in GRIDS and boxes <= WITHOUT else ("yes",):
            begun = time.process_time()
            system = InterfaceSystem(rows, patches.places, DAMPING)
            space = CoarseSpace(patches.partitions[-1], patches.modes, given.outputs) if coarse == "yes" else None
            lifted = None if space is None else system.prolongation(space)
            found = Schwarz(system.rows, system.right, system.parts, variant, lifted).solve(most=MOST)
            series = system.filled(found.x)
            taken = time.process_time() - begun
            apart = f"{float((series - direct).norm() / direct.norm()):.1e}"
            yield line(name, boxes, variant, coarse, len(found.x), found.iterations, apart, taken)


def line(name: str, boxes: int, method: str, coarse: str, unknowns: int, *told: object) -> dict[str, object]:
    """Put the figures of a solve together: corrections, difference, seconds."""
    iterations, apart, taken = told
    level = {"yes": " coarse", "no": " alone"}.get(coarse, "")
    found = (f"{name} {method}{level}", name, boxes, method, coarse, unknowns, iterations, apart, f"{taken:.2g}")
    return dict(zip(FIELDS, found, strict=True))


def _place(one: dict[str, object]) -> tuple[int, int]:
    order = ("dissection", *VARIANTS)
    return list(SYSTEMS).index(str(one["system"])), order.index(str(one["method"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--methods", nargs="*", choices=VARIANTS, default=VARIANTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept: list[dict[str, object]] = []
    if CSV.is_file():
        with CSV.open(newline="") as file:
            kept = list(csv.DictReader(file))
    for name in given.systems or SYSTEMS:
        solved = ("dissection", *given.methods)
        kept = [one for one in kept if one["system"] != name or one["method"] not in solved]
        for found in lines(name, given.methods):
            print(found, flush=True)
            kept.append(found)
        with CSV.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(sorted(kept, key=_place))


if __name__ == "__main__":
    main()
