"""An ablation's figures, and their heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from cpikan.learning.effects import PLAIN, Contrast, Errors
from cpikan.report.figures import INK

_CLIP = 2.0  # decades of the colours


@dataclass(frozen=True)
class Effect:
    """What a part does on a problem (None: on all), compared with the runs of ``beside``."""

    part: str
    problem: str | None
    beside: str
    contrast: Contrast


@dataclass(frozen=True)
class Interaction:
    """What two parts do ``together``, the name of both, compared with the product of what each does alone."""

    parts: tuple[str, str]
    together: str
    contrast: Contrast


@dataclass(frozen=True)
class Ablation:
    """Errors of all runs and what follows from them; ``reasons`` are (part, problem, status, reason) of runs without one."""

    plain: str
    limit: str
    problems: Sequence[str]
    errors: Errors
    effects: Sequence[Effect]
    interactions: Sequence[Interaction]
    reasons: Sequence[tuple[str, str, str, str]]

    @property
    def parts(self) -> list[str]:
        """List the parts, those that were refused everywhere too."""
        named = [name for _, name, _ in self.errors] + [name for name, *_ in self.reasons]
        return [name for name in dict.fromkeys(named) if name != PLAIN]

    def effect(self, part: str, problem: str | None, beside: str = PLAIN) -> Contrast | None:
        """Find an effect; None where the runs have no pair."""
        found = (e for e in self.effects if (e.part, e.problem, e.beside) == (part, problem, beside))
        return next((one.contrast for one in found), None)

    def plain_error(self, problem: str) -> float:
        """Return the median error of the plain runs on a problem."""
        return median(e for (place, name, _), e in self.errors.items() if (place, name) == (problem, PLAIN))


def heat_map(found: Ablation) -> Figure:
    """Draw ratios of errors, a row per part and a column per problem, with the medians over all and their sign tests.

    Blue is better than the plain run, red is worse, grey was refused; colours end at a factor of 100.
    """
    parts, columns = found.parts, [*found.problems, None]
    figure = Figure(figsize=(3.2 + 1.15 * len(columns), 1.5 + 0.36 * len(parts)), layout="constrained")
    axes = figure.subplots()
    cells = [[found.effect(part, problem) for problem in columns] for part in parts]
    shown = np.array([[math.nan if cell is None else math.log10(cell.ratio) for cell in row] for row in cells])
    axes.set_facecolor("#dfe4ea")
    norm = TwoSlopeNorm(0.0, -_CLIP, _CLIP)
    image = axes.imshow(np.clip(shown, -_CLIP, _CLIP), cmap="RdBu_r", norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(shown):
        dark = not math.isnan(value) and abs(value) > 0.65 * _CLIP
        cell = cells[row][column]
        told = "refused" if cell is None else _cell(cell, columns[column] is None)
        axes.text(column, row, told, ha="center", va="center", fontsize=8, color="white" if dark else INK)
    heads = [f"{name}\n{found.plain_error(name):.1e}" for name in found.problems]
    axes.set_xticks(range(len(columns)), [*heads, "all problems\nsign test"], fontsize=8)
    axes.set_yticks(range(len(parts)), parts, fontsize=8)
    axes.axvline(len(columns) - 1.5, color=INK, lw=1.2)
    figure.suptitle(f"error over that of {found.plain}\n(its median below each problem), {found.limit}", fontsize=9)
    bar = figure.colorbar(image, ax=axes, ticks=[-2, -1, 0, 1, 2], fraction=0.04, pad=0.02)
    bar.ax.set_yticklabels(["1/100", "1/10", "1", "10", "100"], fontsize=8)
    return figure


def _cell(found: Contrast, with_test: bool) -> str:
    told = number(found.ratio)
    return f"{told}  (p = {found.p_value:.2g})" if with_test else told


def number(ratio: float) -> str:
    """Write a ratio with two digits."""
    return f"{float(f'{ratio:.2g}'):g}" if 1e-3 <= ratio < 1e5 else f"{ratio:.0e}"
