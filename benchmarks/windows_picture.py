"""Draw what windows of time leave to their networks: ``python benchmarks/windows_picture.py [--seconds 120] [--load PATH]``.

Solves Allen-Cahn by the recipe `windows` on one core for so many processor seconds, or loads what ``Solution.save`` wrote
to PATH, and draws docs/images/windows.png: the solution over space and time with the edges of its windows, its difference
from the lifts, which is what the networks have learned, and its error.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpikan.fields.time_windows import TimeWindows
from cpikan.learning.solution import load_solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem as named

IMAGE = Path(__file__).resolve().parent.parent / "docs" / "images" / "windows.png"
INK = "#1c2836"
PLACES, TIMES = 401, 241
_LEAST = 1e-9  # what is below has one colour


def grids(field: TimeWindows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate the solution, its difference from the lifts and its error on an even grid, (times, places) each."""
    x, t = (torch.linspace(*ends, dtype=torch.float64) for ends in ((-1.0, 1.0, PLACES), (0.0, 1.0, TIMES)))
    at = torch.stack(torch.meshgrid(t, x, indexing="ij")[::-1], dim=-1)
    edges = torch.tensor([part.distance.upper[field.axis] for part in field.parts], dtype=torch.float64)
    owner = torch.searchsorted(edges, t.clamp(max=float(edges[-1])))
    with torch.no_grad():
        value = field(at)[..., 0]
        lift = torch.cat(
            [field.parts[int(number)].lift(row[None])[..., 0] for row, number in zip(at, owner, strict=True)]
        )
        error = (value - named("allen-cahn").reference_values(at.reshape(-1, 2)).reshape(value.shape)).abs()
    return value.numpy(), (value - lift).numpy(), error.numpy()


def panel(axes: Axes, values: np.ndarray, title: str, **how: object) -> None:
    """Draw values over space and time with a colour bar."""
    drawn = axes.imshow(values, origin="lower", extent=(-1, 1, 0, 1), aspect="auto", **how)
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xlabel("x", color=INK)
    axes.figure.colorbar(drawn, ax=axes, pad=0.02)


def draw(field: TimeWindows) -> Figure:
    """Draw the three panels."""
    value, learned, error = grids(field)
    figure = Figure(figsize=(12.5, 3.7), layout="constrained")
    first, second, third = figure.subplots(1, 3, sharey=True)
    panel(first, value, "solution", cmap="RdBu_r", vmin=-1, vmax=1)
    for axes, part, title in (
        (second, np.abs(learned), "solution less lift: what was learned"),
        (third, error, "error"),
    ):
        tens = np.log10(np.maximum(part, _LEAST))
        panel(axes, tens, f"{title}, powers of ten", cmap="viridis", vmin=np.log10(_LEAST), vmax=-1)
    first.set_ylabel("t", color=INK)
    for axes in (first, second, third):
        for part in field.parts[:-1]:
            axes.axhline(part.distance.upper[field.axis], color=INK, linewidth=0.8, linestyle="--")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--load", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.load is not None:
        found = load_solution(given.load)
    else:
        found = solve("allen-cahn", recipe="windows", settings=SolveSettings(given.seconds, clock="processor"))
    assert isinstance(found.field, TimeWindows)
    draw(found.field).savefig(IMAGE, dpi=90)


if __name__ == "__main__":
    main()
