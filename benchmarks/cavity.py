"""The lid-driven cavity at Re 100, beside the published table and a reference of our own: results/cavity.csv.

    python benchmarks/cavity.py [--ways subdomains default trained] [--seeds 0] [--seconds 60] [--add] [--picture]

u, v and p of steady Navier-Stokes on the unit square under a lid of speed 1. `subdomains` are series of 12 modes per axis on
2 x 2 boxes, `default` and `trained` the recipes of those names; all are solved beside the closed flow of the lid's corners
(own_problems/cavity.py). A line a solve: the largest differences of u on the vertical centre line and v on the horizontal one
from the table of Ghia, Ghia and Shin (J. Comput. Phys. 48, 387, 1982; 129 x 129 nodes), and from the reference (a series of
the stream function, own_problems/cavity_reference.py), all as shares of the lid's speed; processor seconds, one core.
The line `reference` has its difference from the table, and from itself with more modes. --picture draws
docs/images/cavity.png of a solve by subdomains.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch

from cpikan.fields.constrained import ConstrainedField
from cpikan.learning.solution import Solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.subdomains import Subdomains
from own_problems.cavity import REYNOLDS, cavity, whole
from own_problems.cavity_reference import cavity_profiles

CSV = Path(__file__).parent / "results" / "cavity.csv"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "cavity.png"
FIELDS = (
    *("way", "reynolds", "seed", "u_from_table", "v_from_table", "u_from_reference", "v_from_reference"),
    *("processor_s", "parameters", "output_share", "frozen_over_found", "trained", "trust"),
)
_FINER, _PLACES = 36, np.linspace(0.01, 0.99, 197)
# y and u, x and v of Re 100; u at 0.0703 lies 0.001 off the curve of its neighbours, in all likelihood by a misprint
TABLE_U = np.array(
    [
        *((0.0547, -0.03717), (0.0625, -0.04192), (0.0703, -0.04775), (0.1016, -0.06434), (0.1719, -0.10150)),
        *((0.2813, -0.15662), (0.4531, -0.21090), (0.5, -0.20581), (0.6172, -0.13641), (0.7344, 0.00332)),
        *((0.8516, 0.23151), (0.9531, 0.68717), (0.9609, 0.73722), (0.9688, 0.78871), (0.9766, 0.84123)),
    ]
)
TABLE_V = np.array(
    [
        *((0.0625, 0.09233), (0.0703, 0.10091), (0.0781, 0.10890), (0.0938, 0.12317), (0.1563, 0.16077)),
        *((0.2266, 0.17507), (0.2344, 0.17527), (0.5, 0.05454), (0.8047, -0.24533), (0.8594, -0.22445)),
        *((0.9063, -0.16914), (0.9453, -0.10313), (0.9531, -0.08864), (0.9609, -0.07391), (0.9688, -0.05906)),
    ]
)
Line = dict[str, object]
Profiles = tuple[np.ndarray, np.ndarray]


def solved(way: str, seed: int, seconds: float) -> Solution:
    """Solve for what is left beside the corners' flows."""
    cut = Subdomains(2, "cpinn", modes=12) if way == "subdomains" else None
    settings = SolveSettings(seconds=seconds, clock="processor", subdomains=cut)
    return solve(cavity("cavity"), recipe="default" if cut else way, seed=seed, settings=settings)


def profiles(field: ConstrainedField, y: np.ndarray, x: np.ndarray) -> Profiles:
    """Evaluate u at heights y of the vertical centre line, and v at places x of the horizontal one."""
    upright, level = (torch.from_numpy(np.stack(line, axis=1)) for line in ((0 * y + 0.5, y), (x, 0 * x + 0.5)))
    with torch.no_grad():
        return field(upright)[:, 0].numpy(), field(level)[:, 1].numpy()


def differences(from_table: Profiles, fine: Profiles, reference: Profiles) -> Line:
    """Compare profiles at the table's places with it, and those at even places with the reference."""
    table = zip(from_table, (TABLE_U[:, 1], TABLE_V[:, 1]), strict=True)
    off = [float(np.abs(a - b).max()) for a, b in (*table, *zip(fine, reference, strict=True))]
    return {name: f"{value:.3g}" for name, value in zip(FIELDS[3:7], off, strict=True)}


def line(way: str, seed: int, seconds: float, reference: Profiles) -> Line:
    """Solve once."""
    begun = time.process_time()
    found = solved(way, seed, seconds)
    took, field, m = time.process_time() - begun, whole(found.field), found.metrics
    off = differences(profiles(field, TABLE_U[:, 0], TABLE_V[:, 0]), profiles(field, _PLACES, _PLACES), reference)
    rest = {"processor_s": f"{took:.1f}", "parameters": m["parameters"], "trained": m.get("trained", "")}
    rest |= {name: f"{m[name]:.3g}" for name in ("output_share", "frozen_over_found") if name in m}
    return {"way": way, "reynolds": f"{REYNOLDS:g}", "seed": seed, "trust": found.trust} | off | rest


def reference_line(reference: Profiles) -> Line:
    """Compare the reference with the table, and with itself of fewer modes."""
    begun = time.process_time()
    coarser = cavity_profiles(REYNOLDS, _PLACES, _PLACES)
    took = time.process_time() - begun
    at_table = cavity_profiles(REYNOLDS, TABLE_U[:, 0], TABLE_V[:, 0], _FINER)
    off = differences(at_table, coarser, reference)
    return {"way": "reference", "reynolds": f"{REYNOLDS:g}", "processor_s": f"{took:.1f}"} | off


def picture(field: ConstrainedField) -> None:
    """Draw speed with streamlines, and both profiles with the table's points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    t = np.linspace(0, 1, 201)
    grid = torch.from_numpy(np.stack(np.meshgrid(t, t, indexing="xy"), axis=-1))
    with torch.no_grad():
        u, v = np.moveaxis(field(grid).numpy()[..., :2], -1, 0)
    figure, (flow, left, right) = plt.subplots(1, 3, figsize=(13, 4.2), width_ratios=(1.15, 1, 1))
    shown = flow.imshow(np.hypot(u, v), extent=(0, 1, 0, 1), origin="lower", cmap="Blues", vmin=0, vmax=1)
    flow.streamplot(t, t, u, v, color="#1d3557", density=1.3, linewidth=0.7, arrowsize=0.8)
    flow.set(xlim=(0, 1), ylim=(0, 1), xlabel="x", ylabel="y", title="streamlines and speed")
    figure.colorbar(shown, ax=flow, shrink=0.85)
    along_u, along_v = profiles(field, t, t)
    left.plot(along_u, t, color="#2b6777")
    left.plot(TABLE_U[:, 1], TABLE_U[:, 0], "o", color="#c8553d", markersize=4)
    left.set(xlabel="u at x = 0.5", ylabel="y")
    right.plot(t, along_v, color="#2b6777", label="solve, 2 x 2 series")
    right.plot(TABLE_V[:, 0], TABLE_V[:, 1], "o", color="#c8553d", markersize=4, label="Ghia, Ghia and Shin, 1982")
    right.set(xlabel="x", ylabel="v at y = 0.5")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=["subdomains", "default", "trained"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--add", action="store_true", help="keep the lines that are there")
    parser.add_argument("--picture", action="store_true")
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.picture:
        picture(whole(solved("subdomains", 0, given.seconds).field))
        return
    reference = cavity_profiles(REYNOLDS, _PLACES, _PLACES, _FINER)
    with given.csv.open("a" if given.add else "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not given.add:
            writer.writeheader()
            writer.writerow(reference_line(reference))
        for way in given.ways:
            for seed in given.seeds:
                found = line(way, seed, given.seconds, reference)
                print(found, flush=True)
                writer.writerow(found)
                file.flush()


if __name__ == "__main__":
    main()
