"""Small figures of a fit of the frames: the steps on the circle, the camera's response, ripple before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cpikan.psi.model.frame_model import Response
from cpikan.report.figures import ACCENT, FONT_PT, INK, RULE, SECOND, chart_axes

SMALL_IN = (2.55, 2.15)
_TOGETHER_DEG = 9.0  # frames closer than this on the circle share a label


def circle_figure(step_deg: NDArray[np.floating], error_deg: NDArray[np.floating] | None) -> Figure:
    """Draw steps (K,) on the circle with their frame numbers; the widest gap is dashed, errors thicken the circle."""
    figure = Figure(figsize=SMALL_IN, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-1.66, 1.66)
    axes.set_ylim(-1.36, 1.36)
    start, gap = _widest_gap(step_deg)
    for angles, style in (((start + gap, start + 360), "-"), ((start, start + gap), (0, (2, 2)))):
        axes.plot(*_arc(*angles), color=ACCENT if style == "-" else SECOND, linewidth=1.1, linestyle=style)
    for angle, error in zip(step_deg, np.zeros(len(step_deg)) if error_deg is None else error_deg, strict=True):
        axes.plot(*np.outer(_at(angle), (0, 1)), color=RULE, linewidth=0.7, zorder=0)
        if error > 0:
            axes.plot(*_arc(angle - error, angle + error), color=ACCENT, linewidth=5, alpha=0.35)
    axes.plot(*_at(step_deg), "o", color=ACCENT, markersize=4.5)
    for angle, frames in _labels(step_deg):
        x, y = 1.13 * _at(angle)
        side = "center" if abs(x) < 0.35 else "left" if x > 0 else "right"
        above = "center" if abs(y) < 0.6 else "bottom" if y > 0 else "top"
        axes.text(x, y, ", ".join(map(str, frames)), size=FONT_PT, color=INK, ha=side, va=above)
    return figure


def response_figure(response: Response) -> Figure:
    """Draw the light minus the sample over the sample, both in DN."""
    figure, axes = chart_axes(*SMALL_IN)
    samples = np.linspace(response.low_dn, response.high_dn, 129)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.plot(samples, response.light_dn(samples) - samples, color=ACCENT, linewidth=1.2)
    axes.set_xlim(response.low_dn, response.high_dn)
    axes.set_xlabel("sample / DN")
    axes.set_ylabel("light − sample / DN")
    return figure


def ripple_figure(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> Figure:
    """Draw the amplitudes in mrad by multiple of the fringe, as bars beside each other."""
    figure, axes = chart_axes(*SMALL_IN)
    shown = [(values, colour) for values, colour in ((before, SECOND), (after, ACCENT)) if values]
    names = sorted({name for values, _ in shown for name in values})
    width = 0.8 / len(shown)
    for i, (values, colour) in enumerate(shown):
        places = np.arange(len(names)) + (i - (len(shown) - 1) / 2) * width
        axes.bar(places, [values.get(name, 0.0) for name in names], 0.92 * width, color=colour)
    axes.grid(False, axis="x")
    axes.set_xticks(range(len(names)), [f"{name}×" for name in names])
    axes.set_ylabel("ripple / mrad")
    return figure


def _at(angle_deg: float | NDArray[np.floating]) -> NDArray[np.float64]:
    angle = np.radians(angle_deg)
    return np.array([np.cos(angle), np.sin(angle)])


def _arc(first_deg: float, last_deg: float) -> NDArray[np.float64]:
    return _at(np.linspace(first_deg, last_deg, max(2, int(abs(last_deg - first_deg)) + 1)))


def _widest_gap(step_deg: NDArray[np.floating]) -> tuple[float, float]:
    """Find the start and the width of the widest gap between steps on the circle, in degrees."""
    angles = np.sort(np.mod(step_deg, 360))
    gaps = np.diff(angles, append=angles[0] + 360)
    widest = int(np.argmax(gaps))
    return float(angles[widest]), float(gaps[widest])


def _labels(step_deg: NDArray[np.floating]) -> Sequence[tuple[float, list[int]]]:
    """Group frame numbers that lie together, with the angle of their middle in degrees."""
    angles = np.mod(step_deg, 360)
    order = [int(k) for k in np.argsort(angles, kind="stable")]
    groups: list[list[int]] = []
    for k in order:
        if groups and angles[k] - angles[groups[-1][-1]] < _TOGETHER_DEG:
            groups[-1].append(k)
        else:
            groups.append([k])
    if len(groups) > 1 and angles[groups[0][0]] + 360 - angles[groups[-1][-1]] < _TOGETHER_DEG:
        groups[0] = groups.pop() + groups[0]
    middles = [float(np.degrees(np.angle(np.exp(1j * np.radians(angles[group])).mean()))) for group in groups]
    return [(middle, sorted(group)) for middle, group in zip(middles, groups, strict=True)]
