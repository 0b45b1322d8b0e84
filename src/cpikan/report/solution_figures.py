"""Pictures of a solution: what was found, its error, and how the residual fell."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from cpikan.learning.solution import Solution
from cpikan.learning.solver import evaluate
from cpikan.physics.regions import Box
from cpikan.report.figures import ACCENT, INK, SECOND
from cpikan.storage.formats import picture

_SIDE = 201


def save_solution_figures(solution: Solution, path: Path | str) -> None:
    """Write solution, error and history side by side as .png, .svg or .pdf; three dimensions are cut in the middle.

    Of several outputs the first is shown. Raises InputError for another ending.
    """
    solution_figure(solution).savefig(picture(path), dpi=130)


def solution_figure(solution: Solution) -> Figure:
    """Draw the solution, its error and the held-out residual over time as one figure of three panels."""
    figure = Figure(figsize=(11, 3.7), layout="constrained")
    figure.suptitle(_headline(solution), fontsize=11)
    left, middle, right = figure.subplots(1, 3)
    problem = solution.problem
    x = _plane(problem.region, problem.dimension)
    inside = problem.region.contains(x.numpy())
    value = evaluate(solution.field, x)[:, 0].numpy()
    truth = None if problem.exact is None else problem.reference_values(x)[:, 0].numpy()
    if problem.dimension == 1:
        _lines(left, middle, x[:, 0].numpy(), value, truth)
    else:
        _maps(figure, left, middle, problem.region, np.where(inside, value, np.nan), truth)
    left.set_title("solution" if problem.outputs == 1 else f"first of {problem.outputs} outputs")
    middle.set_title("error" if truth is not None else "no reference")
    _history(right, solution)
    return figure


def _headline(solution: Solution) -> str:
    """Tell in one line which problem was solved, with what relative L2 error, in how many seconds, and whether to trust it."""
    error, seconds = solution.metrics["relative_l2"], solution.metrics["seconds"]
    reached = "" if error is None else f"relative L2 error {error:.1e}, "
    return f"{solution.problem.name}: {reached}{seconds:.1f} s, {solution.trust}"


def _plane(region: Any, dimension: int) -> torch.Tensor:
    ticks = [np.linspace(a, b, _SIDE) for a, b in zip(region.lower[:2], region.upper[:2], strict=True)]
    grid = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, min(2, dimension))
    rest = [np.full(len(grid), 0.5 * (a + b)) for a, b in zip(region.lower[2:], region.upper[2:], strict=True)]
    return torch.from_numpy(np.column_stack([grid, *rest]))


def _lines(left: Axes, middle: Axes, x: np.ndarray, value: np.ndarray, truth: np.ndarray | None) -> None:
    left.plot(x, value, color=ACCENT)
    left.set_xlabel("x")
    if truth is not None:
        middle.plot(x, value - truth, color=SECOND, lw=0.9)
        middle.set_xlabel("x")


def _maps(figure: Figure, left: Axes, middle: Axes, region: Any, value: np.ndarray, truth: np.ndarray | None) -> None:
    names = region.axes if isinstance(region, Box) else ("x", "y")
    extent = (region.lower[0], region.upper[0], region.lower[1], region.upper[1])
    aspect: Literal["auto", "equal"] = "auto" if "t" in names else "equal"  # time has no scale in common with space
    panels: list[tuple[Axes, np.ndarray, str, float | None]] = [(left, value, "viridis", None)]
    if truth is not None:
        error = value - truth
        panels.append((middle, error, "RdBu_r", float(np.nanmax(np.abs(error))) or 1.0))
    for axes, table, colours, bound in panels:
        shown = np.ma.masked_invalid(table.reshape(_SIDE, _SIDE).T)
        low = None if bound is None else -bound
        image = axes.imshow(shown, origin="lower", extent=extent, aspect=aspect, cmap=colours, vmin=low, vmax=bound)
        figure.colorbar(image, ax=axes, format=_power_format() if bound is not None else None)
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])


def _power_format() -> ScalarFormatter:
    """Make a formatter that puts a common power of ten for small numbers above the bar."""
    found = ScalarFormatter(useMathText=True)
    found.set_powerlimits((-2, 3))
    return found


def _history(axes: Axes, solution: Solution) -> None:
    for number, end in enumerate(solution.history.ends):
        records = [record for record in solution.history.records if record["stage"] == end.stage]
        if records:
            colour = (ACCENT, SECOND, INK)[number % 3]
            seconds, heldout = zip(*((r["seconds"], max(r["heldout"], 1e-300) ** 0.5) for r in records), strict=True)
            axes.semilogy(seconds, heldout, ".-", color=colour, label=f"{end.stage}: {end.reason.name.lower()}")
    axes.set_title("held-out residual")
    axes.set_xlabel("seconds")
    axes.legend(fontsize=8)
