"""The figures of a wafer's page: map with sites, die map, edge by angle, threshold height curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from cpikan.pipeline.maps.wafer.numbers import SITE, WaferNumbers
from cpikan.report import figures
from cpikan.report.figures import ACCENT, FONT_PT, INK, RULE, SECOND
from cpikan.wafer.thresholds import SHARE

_WIDE_IN, _HALF_IN = 11.1, 5.2
_MOST_LABELS = 400  # of sites: beyond, their numbers would be too small to read


@dataclass(frozen=True)
class Picture:
    """Heights in nm (rows, columns) at places in mm from the centre, x and y."""

    heights: NDArray[np.float64]
    x_mm: NDArray[np.float64]
    y_mm: NDArray[np.float64]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Give left, right, bottom and top in mm."""
        across, down = abs(self.x_mm[1] - self.x_mm[0]) / 2, abs(self.y_mm[1] - self.y_mm[0]) / 2
        return self.x_mm[0] - across, self.x_mm[-1] + across, self.y_mm[-1] - down, self.y_mm[0] + down


def map_figure(picture: Picture, numbers: WaferNumbers) -> Figure:
    """Draw the heights with the edge, the quality area, the sites and the notch."""
    figure, axes = _square_axes(numbers)
    scale = figures.height_scale(picture.heights, "height")
    image = axes.imshow(
        np.ma.masked_invalid(picture.heights * scale.factor),
        cmap=scale.colormap,
        norm=Normalize(scale.low, scale.high),
        extent=picture.extent,
        interpolation="none",
    )
    axes.add_patch(
        Circle((0, 0), numbers.grid.radius_mm, fill=False, edgecolor="#ffffff", linewidth=0.8, linestyle="--")
    )
    patches = PatchCollection(
        [_rectangle(numbers, k) for k in range(len(numbers.grid.sites))],
        facecolor="none",
        edgecolor="#ffffff",
        linewidth=0.3,
        alpha=0.55,
    )
    patches.set_clip_path(Circle((0, 0), numbers.grid.radius_mm, transform=axes.transData))
    axes.add_collection(patches)
    _notch(axes, numbers)
    _bar(figure, axes, image, f"height / {scale.unit}")
    return figure


def die_figure(numbers: WaferNumbers) -> Figure:
    """Draw every site in the colour of its range about its own plane, with the number where there is room."""
    figure, axes = _square_axes(numbers)
    ranges = numbers.sites.spreads[SITE].range / 1e3
    seen = ranges[np.isfinite(ranges)]
    norm = Normalize(float(seen.min()), float(seen.max())) if seen.size else Normalize(0, 1)
    colours = mpl.colormaps["viridis"].with_extremes(bad=figures.INVALID)
    sites = range(len(numbers.grid.sites))
    patches = PatchCollection([_rectangle(numbers, k) for k in sites], edgecolor="#ffffff", linewidth=0.4)
    patches.set_array(np.ma.masked_invalid(ranges))
    patches.set_cmap(colours)
    patches.set_norm(norm)
    patches.set_clip_path(Circle((0, 0), numbers.grid.radius_mm, transform=axes.transData))
    axes.add_collection(patches)
    axes.add_patch(Circle((0, 0), numbers.wafer.radius_mm, fill=False, edgecolor=INK, linewidth=0.8))
    _notch(axes, numbers)
    if len(sites) <= _MOST_LABELS:
        _site_labels(axes, numbers, ranges, norm)
    _bar(figure, axes, patches, "SFQR / µm")
    return figure


def _site_labels(axes: Any, numbers: WaferNumbers, ranges: NDArray[np.float64], norm: Normalize) -> None:
    width = numbers.grid.size_mm[0] / numbers.wafer.radius_mm  # of a digit's room
    size = float(np.clip(34 * width, 3.5, FONT_PT))
    turn = numbers.grid.turn_deg
    for k, site in enumerate(numbers.grid.sites):
        if site.full and np.isfinite(ranges[k]):
            x, y = numbers.grid.on_map(site.x_mm, site.y_mm)
            ink = "#ffffff" if norm(ranges[k]) < 0.6 else "#1b1b1b"
            angle = (turn + 90) % 180 - 90
            axes.text(
                x, y, f"{ranges[k]:.3g}", ha="center", va="center", fontsize=size, color=ink, rotation=angle, gid=None
            )


def edge_figure(numbers: WaferNumbers) -> Figure:
    """Draw ESFQR and roll-off by polar angle around the wafer."""
    figure = Figure(figsize=(_HALF_IN, _HALF_IN * 0.86), layout="constrained")
    figure.patch.set_alpha(0)
    axes: Any = figure.add_subplot(projection="polar")
    axes.patch.set_alpha(0)
    angles = np.deg2rad(np.append(numbers.sectors.angles_deg, numbers.sectors.angles_deg[0] + 360))
    for values, label, colour in (
        (numbers.edge.spread.range / 1e3, "ESFQR", ACCENT),
        (numbers.edge.roll_off_nm / 1e3, "ROA", SECOND),
    ):
        if np.isfinite(values).any():
            axes.plot(angles, np.append(values, values[0]), color=colour, linewidth=1.1, label=f"{label} / µm")
    if numbers.wafer.notch_deg is not None:
        axes.axvline(np.deg2rad(numbers.wafer.notch_deg), color=INK, linewidth=0.8, linestyle=":")
    axes.grid(True, color=RULE, linewidth=0.5)
    axes.tick_params(labelsize=FONT_PT, colors=INK)
    axes.spines["polar"].set_color(RULE)
    low = min(0.0, *(float(np.nanmin(line.get_ydata())) for line in axes.lines[:2])) if len(axes.lines) > 1 else 0.0
    axes.set_rmin(1.2 * low)
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(fontsize=FONT_PT, frameon=False, loc="upper left", bbox_to_anchor=(-0.16, 1.06))
        for text in legend.get_texts():
            text.set_color(INK)
    return figure


def threshold_figure(numbers: WaferNumbers) -> Figure:
    """Draw the share of windows above a height, logarithmic."""
    figure, axes = figures.chart_axes(_HALF_IN, 3.6)
    for found, colour in zip(numbers.thresholds, (ACCENT, SECOND), strict=False):
        curve = np.array(found.curve(300))
        if curve.size:
            axes.plot(
                curve[:, 1], 100 * curve[:, 0], color=colour, linewidth=1.1, label=f"{found.diameter_mm:g} mm windows"
            )
    axes.axhline(100 * SHARE, color=INK, linewidth=0.8, dashes=(5, 4))
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("peak to valley / nm")
    axes.set_ylabel("windows above / %")
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(fontsize=FONT_PT, frameon=False)
        for text in legend.get_texts():
            text.set_color(INK)
    return figure


def _square_axes(numbers: WaferNumbers) -> tuple[Figure, Any]:
    figure, axes = figures.chart_axes(_WIDE_IN * 0.8, _WIDE_IN * 0.7)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    reach = 1.02 * max(numbers.wafer.radius_mm, numbers.grid.radius_mm)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.set_xlabel("x / mm")
    axes.set_ylabel("y / mm")
    return figure, axes


def _rectangle(numbers: WaferNumbers, number: int) -> Rectangle:
    site, (width, height) = numbers.grid.sites[number], numbers.grid.size_mm
    corner = site.x_mm - width / 2, site.y_mm - height / 2
    turn = Affine2D().rotate_deg(numbers.grid.turn_deg)
    return Rectangle(tuple(turn.transform(corner)), width, height, angle=numbers.grid.turn_deg)


def _notch(axes: Any, numbers: WaferNumbers) -> None:
    if numbers.wafer.notch_deg is not None:
        turn, reach = np.deg2rad(numbers.wafer.notch_deg), numbers.wafer.radius_mm
        axes.plot([reach * np.cos(turn)], [reach * np.sin(turn)], marker="o", markersize=5, color=SECOND, clip_on=False)


def _bar(figure: Figure, axes: Any, mappable: Any, label: str) -> None:
    bar = figure.colorbar(mappable, ax=axes, fraction=0.05, pad=0.02, aspect=30)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=FONT_PT, colors=INK, width=0.6, length=3)
    bar.set_label(label, size=FONT_PT, color=INK)
