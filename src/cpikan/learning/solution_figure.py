"""A picture of a solution: what was found, its error, where the equation is met less, and how the residual fell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from torch import Tensor

from cpikan.errors import InputError, unknown_name
from cpikan.learning.unknowns import append_unknowns
from cpikan.physics.problem import Problem

if TYPE_CHECKING:
    from cpikan.learning.solution import Solution

_ALONG, _SIDE = 401, 121  # points of a line, and of a map along each axis
_CHUNK = 4096
_INK, _FIRST, _SECOND = "#1c2836", "#1f66ad", "#b4531a"


@dataclass(frozen=True)
class Slice:
    """A line or a plane through a region: the axes that vary with their ticks, and all points (n, d) on it."""

    names: tuple[str, ...]
    ticks: tuple[np.ndarray, ...]
    points: np.ndarray
    fixed: Mapping[str, float]

    def shaped(self, values: np.ndarray) -> np.ndarray:
        """Put values of the points into (n,), or into rows of an image, (rows, columns)."""
        return values if len(self.ticks) == 1 else values.reshape(len(self.ticks[0]), -1).T


def solution_figure(solution: Solution, output: int = 0, at: Mapping[str, float] | None = None) -> Figure:
    """Draw an output of a solution, its error where the truth is known, the equation's residual and the held-out history.

    Two axes are shown; ``at`` fixes others, which else are cut in the middle: ``{"z": 0.2}``, or ``{"t": 1.0}`` for a line.
    Raises InputError for an unknown axis, a place outside the region, and an output that is not there.
    """
    problem = solution.problem
    if output not in range(problem.outputs):
        raise InputError(f"output {output} of {problem.name}: give 0 to {problem.outputs - 1}")
    cut = sliced(problem, at or {})
    inside = problem.region.contains(cut.points)
    value = np.where(inside, solution(cut.points)[:, output], np.nan)
    panels: list[tuple[str, np.ndarray]] = [("solution", value)]
    truth = None if problem.exact is None else problem.reference_values(torch.from_numpy(cut.points)).numpy()
    if truth is not None and output < truth.shape[1]:
        panels.append(("error", value - truth[:, output]))
    panels.append(("residual", np.where(inside, residual_size(solution, cut.points), np.nan)))
    figure = Figure(figsize=(3.7 * (len(panels) + 1), 3.7), layout="constrained")
    figure.suptitle(_headline(solution), fontsize=11)
    *places, last = figure.subplots(1, len(panels) + 1)
    for axes, (what, values) in zip(places, panels, strict=True):
        (_line if len(cut.ticks) == 1 else _map)(axes, cut, what, values)
        axes.set_title(what if what != "solution" else _title(problem, output, cut))
    _history(last, solution)
    return figure


def sliced(problem: Problem, at: Mapping[str, float]) -> Slice:
    """Make the points of a line or a plane: the first two axes that are not fixed vary."""
    region = problem.region
    names = tuple(getattr(region, "axes", ("x", "y", "z")[: problem.dimension]))
    for name, place in at.items():
        if name not in names:
            raise unknown_name("axis", str(name), names)
        low, high = region.lower[names.index(name)], region.upper[names.index(name)]
        if not low <= place <= high:
            raise InputError(f"cut at {name} = {place}: give a place from {low} to {high}")
    free = [name for name in names if name not in at][:2]
    if not free:
        raise InputError(f"cut at {dict(at)} leaves no axis of {problem.name}: leave one of {', '.join(names)} out")
    count = _ALONG if len(free) == 1 else _SIDE
    bounds = dict(zip(names, zip(region.lower, region.upper, strict=True), strict=True))
    ticks = tuple(np.linspace(bounds[name][0], bounds[name][1], count) for name in free)
    fixed = {name: float(at.get(name, 0.5 * sum(bounds[name]))) for name in names if name not in free}
    grid = dict(zip(free, (axis.ravel() for axis in np.meshgrid(*ticks, indexing="ij")), strict=True))
    points = np.column_stack(
        [grid[name] if name in grid else np.full(count ** len(free), fixed[name]) for name in names]
    )
    return Slice(tuple(free), ticks, points, fixed)


def residual_size(solution: Solution, points: np.ndarray) -> np.ndarray:
    """Compute the root of the sum of squares of the equation's residuals at points (n, d), (n,)."""
    problem, known = solution.problem, len(solution.problem.unknowns)
    found = solution.metrics["coefficients"][-known:] if known else None
    sizes = []
    for x in torch.from_numpy(points).split(_CHUNK):
        with torch.no_grad():
            unknown = None if found is None else torch.tensor(found, dtype=torch.float64).expand(len(x), -1)
            field: Any = solution.field
            jet = append_unknowns(field.jet(x, problem.second), unknown)
            sizes.append(_size(list(problem.interior(jet, x).values())))
    return torch.cat(sizes).numpy()


def _size(residuals: list[Tensor]) -> Tensor:
    return torch.stack(residuals).square().sum(dim=0).sqrt()


def _headline(solution: Solution) -> str:
    """Tell in one line which problem was solved, with what relative L2 error, in how many seconds, and whether to trust it."""
    error, seconds = solution.metrics["relative_l2"], solution.metrics["seconds"]
    reached = "" if error is None else f"relative L2 error {error:.1e}, "
    return f"{solution.problem.name}: {reached}{seconds:.1f} s, {solution.trust}"


def _title(problem: Problem, output: int, cut: Slice) -> str:
    one = "solution" if problem.outputs == 1 else f"output {output} of {problem.outputs}"
    return ", ".join([one, *(f"{name} = {place:.4g}" for name, place in cut.fixed.items())])


def _line(axes: Axes, cut: Slice, what: str, values: np.ndarray) -> None:
    draw = axes.semilogy if what == "residual" else axes.plot
    shown = np.maximum(values, 1e-300) if what == "residual" else values
    draw(cut.ticks[0], shown, color=_FIRST if what == "solution" else _SECOND, lw=1.4 if what == "solution" else 0.9)
    axes.set_xlabel(cut.names[0])


def _map(axes: Axes, cut: Slice, what: str, values: np.ndarray) -> None:
    colours = {"solution": "viridis", "error": "RdBu_r", "residual": "magma"}[what]
    shown = np.log10(np.maximum(values, 1e-300)) if what == "residual" else values
    image = np.ma.masked_invalid(cut.shaped(shown))
    bound = float(np.abs(image).max()) or 1.0 if what == "error" else None
    extent = (cut.ticks[0][0], cut.ticks[0][-1], cut.ticks[1][0], cut.ticks[1][-1])
    aspect: Literal["auto", "equal"] = "auto" if "t" in cut.names else "equal"  # time has no scale in common with space
    low = None if bound is None else -bound
    if what == "residual" and image.count():  # a few points that are met to rounding would take all the colours
        low, bound = float(np.percentile(image.compressed(), 2)), float(image.max())
    drawn = axes.imshow(image, origin="lower", extent=extent, aspect=aspect, cmap=colours, vmin=low, vmax=bound)
    bar = axes.figure.colorbar(drawn, ax=axes, format=_power_format() if what == "error" else None)
    if what == "residual":
        bar.set_label("log10")
    axes.set_xlabel(cut.names[0])
    axes.set_ylabel(cut.names[1])


def _power_format() -> ScalarFormatter:
    """Make a formatter that puts a common power of ten for small numbers above the bar."""
    found = ScalarFormatter(useMathText=True)
    found.set_powerlimits((-2, 3))
    return found


def _history(axes: Axes, solution: Solution) -> None:
    for number, end in enumerate(solution.history.ends):
        records = [record for record in solution.history.records if record["stage"] == end.stage]
        if records:
            colour = (_FIRST, _SECOND, _INK)[number % 3]
            seconds, heldout = zip(*((r["seconds"], max(r["heldout"], 1e-300) ** 0.5) for r in records), strict=True)
            axes.semilogy(seconds, heldout, ".-", color=colour, label=f"{end.stage}: {end.reason.name.lower()}")
    axes.set_title("held-out residual")
    axes.set_xlabel("seconds")
    if axes.lines:
        axes.legend(fontsize=8)
