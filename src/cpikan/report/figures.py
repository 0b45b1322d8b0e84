"""The figures of a report as Matplotlib figures: how lengths become axes and values colours; nothing global is touched."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from cpikan.psi.model.flags import Flag
from cpikan.report.seams import SeamCheck
from cpikan.units import PixelUm, pixel_pair

if TYPE_CHECKING:
    from cpikan.report.survey import Histogram


INVALID = "#8d96a088"  # translucent grey on either theme
_LEVELS = 250  # with the colour of invalid pixels still a palette of one byte


@dataclass(frozen=True)
class Lateral:
    """The lateral scale of an image: ``size`` (height, width) in ``unit``."""

    size: tuple[float, float]
    unit: str

    @classmethod
    def of(cls, shape: tuple[int, int], pixel_um: PixelUm | None) -> Lateral:
        """Choose millimetres (or micrometres below 2 mm) when the sampling is known, otherwise pixels."""
        pair = pixel_pair(pixel_um)
        if pair is None:
            return cls((float(shape[0]), float(shape[1])), "px")
        y, x = shape[0] * pair[0], shape[1] * pair[1]
        return (
            cls((y, x), "µm")
            if max(y, x) < 2000
            else cls((shape[0] * (pair[0] / 1000), shape[1] * (pair[1] / 1000)), "mm")
        )


@dataclass(frozen=True)
class Scale:
    """How values become colours: limits, colour map, unit, and a name for the bar."""

    low: float
    high: float
    unit: str
    label: str
    colours: str = "viridis"
    factor: float = 1.0  # values are multiplied by it before they are shown

    @property
    def colormap(self) -> Colormap:
        return mpl.colormaps[self.colours].resampled(_LEVELS).with_extremes(bad=INVALID)


def length_unit(span_nm: float) -> tuple[float, str]:
    """Find the factor from nm and the unit that show a span of heights with few digits."""
    for limit, factor, unit in ((0.5, 1e3, "pm"), (5e3, 1.0, "nm"), (5e6, 1e-3, "µm")):
        if span_nm < limit:
            return factor, unit
    return 1e-6, "mm"


def height_scale(values_nm: NDArray[np.floating], label: str) -> Scale:
    """Choose limits without the outermost two thousandths, in the unit that suits their span."""
    low, high = _percentiles(values_nm, 0.2, 99.8)
    factor, unit = length_unit(high - low)
    return Scale(low * factor, high * factor, unit, label, factor=factor)


def error_scale(values_nm: NDArray[np.floating], limit_nm: float) -> Scale:
    """Choose symmetric limits that hold 99.5 % of the errors within ``limit_nm``; larger ones saturate."""
    size = np.abs(values_nm)
    high = _percentiles(np.where(size <= limit_nm, size, np.nan), 0, 99.5)[1]
    factor, unit = length_unit(high)
    return Scale(-high * factor, high * factor, unit, "error", "RdBu_r", factor)


def quantity_scale(values: NDArray[np.floating], unit: str, label: str, colours: str) -> Scale:
    """Choose the limits of a quantity that is shown as it is, sigma in the unit that suits it."""
    low, high = _percentiles(values, 0.2, 99.8)
    scale = Scale(low, high, unit, label, colours)
    if unit != "nm":
        return scale
    factor, unit = length_unit(high)
    return replace(scale, low=low * factor, high=high * factor, unit=unit, factor=factor)


def _percentiles(values: NDArray[np.floating], low: float, high: float) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    first, last = (float(v) for v in np.percentile(finite, [low, high]))
    if last - first > 1e-12 * max(abs(first), abs(last)):
        return first, last
    air = 0.01 * abs(first) or 0.5  # a constant picture: some air so that the bar has a length
    return first - air, last + air


# One colour per role; the page replaces them by its own, so that figures follow a light or a dark theme.
INK, RULE, ACCENT, SECOND = "#1c2836", "#c5ced8", "#1f66ad", "#b4531a"

FONT_PT = 8.4
PROFILE_POINTS = 1200

FLAG_NAMES: Mapping[Flag, str] = {
    Flag.INPAINTED: "in-painted guess",
    Flag.REFINED: "order changed by a refiner",
    Flag.AMBIGUOUS: "ambiguous order",
    Flag.SATURATED: "saturated",
    Flag.LOW_MODULATION: "low modulation",
    Flag.INVALID: "invalid",
}
# Okabe and Ito (2008): tell apart with any colour vision
FLAG_COLOURS: Mapping[Flag, str] = {
    Flag.INPAINTED: "#cc79a7",
    Flag.REFINED: "#0072b2",
    Flag.AMBIGUOUS: "#e69f00",
    Flag.SATURATED: "#d55e00",
    Flag.LOW_MODULATION: "#56b4e9",
    Flag.INVALID: "#8d96a0",
}
PLAIN_COLOUR = "#009e73"


def map_figure(
    values: NDArray[np.floating], scale: Scale, lateral: Lateral, *, width_in: float, cross: bool = False
) -> Figure:
    """Draw a picture of a quantity with axes and colour bar; ``cross`` marks the profiles through the centre."""
    shown = np.ma.masked_invalid(values * scale.factor)
    figure, axes = _image_axes(lateral, width_in, bar_in=0.95)
    image = axes.imshow(
        shown,
        cmap=scale.colormap,
        norm=Normalize(scale.low, scale.high),
        extent=(0, lateral.size[1], lateral.size[0], 0),
        interpolation="none",
    )
    if cross:
        for line, middle in ((axes.axhline, lateral.size[0] / 2), (axes.axvline, lateral.size[1] / 2)):
            line(middle, color="#ffffff", linewidth=0.7, alpha=0.75, dashes=(5, 4))
    below, above = bool((shown < scale.low).any()), bool((shown > scale.high).any())
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    bar = figure.colorbar(
        image, ax=axes, extend=extend[below, above], fraction=0.05, pad=0.02, aspect=26, extendfrac=0.03
    )
    if bar.solids is not None:
        bar.solids.set_rasterized(True)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=FONT_PT, colors=INK, width=0.6, length=3)
    bar.set_label(f"{scale.label} / {scale.unit}" if scale.unit else scale.label, size=FONT_PT, color=INK)
    bar.locator = MaxNLocator(7)
    bar.formatter = FuncFormatter(_plain_number)
    bar.update_ticks()
    return figure


def flags_figure(flags: NDArray[np.integer], lateral: Lateral, *, width_in: float) -> Figure:
    """Draw every pixel in the colour of its most telling flag (in the order of ``FLAG_NAMES``), without a legend."""
    category = np.zeros(flags.shape, np.int64)
    for index, flag in reversed(list(enumerate(FLAG_NAMES, start=1))):
        category[(flags & int(flag)) != 0] = index
    figure, axes = _image_axes(lateral, width_in, bar_in=0.0)
    axes.imshow(
        category,
        cmap=ListedColormap([PLAIN_COLOUR, *FLAG_COLOURS.values()]),
        norm=Normalize(-0.5, len(FLAG_NAMES) + 0.5),
        extent=(0, lateral.size[1], lateral.size[0], 0),
        interpolation="none",
    )
    return figure


def histogram_figure(histogram: Histogram, scale: Scale, *, width_in: float) -> Figure:
    """Draw a histogram in per cent of the pixels per bin."""
    figure, axes = chart_axes(width_in, 2.5)
    edges = histogram.edges * scale.factor
    share = 100 * histogram.counts / max(int(histogram.counts.sum()) + histogram.outside, 1)
    axes.stairs(share, edges, fill=True, color=ACCENT, alpha=0.3)
    axes.stairs(share, edges, color=ACCENT, linewidth=1.0)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{scale.label} / {scale.unit}")
    axes.set_ylabel("pixels per bin / %")
    return figure


def profiles_figure(
    row: NDArray[np.floating], column: NDArray[np.floating], scale: Scale, lateral: Lateral, *, width_in: float
) -> Figure:
    """Draw the row and the column through the centre, one above the other on a common height axis."""
    figure = Figure(figsize=(width_in, 3.9), layout="constrained")
    figure.patch.set_alpha(0)
    upper, lower = figure.subplots(2, 1, sharey=True)
    for axes, values, length, name, colour in (
        (upper, row, lateral.size[1], "x", ACCENT),
        (lower, column, lateral.size[0], "y", SECOND),
    ):
        _style(axes)
        _line(axes, values * scale.factor, length, colour)
        axes.set_xlim(0, length)
        axes.set_xlabel(f"{name} / {lateral.unit}")
        axes.set_ylabel(f"{scale.label} / {scale.unit}")
    return figure


def seams_figure(checks: Mapping[str, SeamCheck], *, width_in: float) -> Figure:
    """Draw the mean |error step| folded by the distance to the nearest border: a seam is a peak in the middle."""
    figure, axes = chart_axes(width_in, 2.5)
    colours = itertools.cycle((ACCENT, SECOND, INK))
    highest = max(float(np.nanmax(check.folded_nm)) for check in checks.values())
    factor, unit = length_unit(highest)
    for colour, (name, check) in zip(colours, checks.items(), strict=False):
        axes.plot(check.distance_px, check.folded_nm * factor, color=colour, linewidth=0.9, label=name)
    axes.axvline(0, color=RULE, linewidth=0.8, zorder=0)
    axes.set_ylim(0, 1.25 * highest * factor or 1.0)
    axes.set_xlabel("distance to a border / px")
    axes.set_ylabel(f"mean |step| / {unit}")
    legend = axes.legend(fontsize=FONT_PT, frameon=False, loc="lower right", ncols=min(len(checks), 3))
    for text in legend.get_texts():
        text.set_color(INK)
    return figure


def _line(
    axes: Any,
    values: NDArray[np.floating],
    length: float,
    colour: str,
) -> None:
    """Draw a profile.

    Where it has more samples than the figure has room for, their mean is drawn, with the band between minimum and
    maximum.
    """
    values = np.asarray(values, np.float64)
    size = -(-values.size // PROFILE_POINTS)
    position = (np.arange(values.size) + 0.5) * length / values.size
    if size == 1:
        axes.plot(position, values, color=colour, linewidth=0.9)
        return
    starts = np.arange(0, values.size, size)
    finite = np.isfinite(values)
    count = np.add.reduceat(finite.astype(np.int64), starts)
    total = np.add.reduceat(np.where(finite, values, 0), starts)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    middle = np.add.reduceat(position, starts) / np.diff([*starts, values.size])
    axes.fill_between(middle, low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(middle, mean, color=colour, linewidth=0.8)


def _image_axes(lateral: Lateral, width_in: float, bar_in: float) -> tuple[Figure, Any]:
    """Make a figure whose height follows the image, within reason, so that no room is lost beside the image."""
    aspect = lateral.size[0] / lateral.size[1]
    room = width_in - 0.75 - bar_in
    height = float(np.clip(room * aspect, 0.8, 0.72 * width_in))
    figure = Figure(figsize=(min(width_in, height / aspect + 0.75 + bar_in), height + 0.5), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    _style(axes)
    axes.grid(False)
    axes.patch.set_alpha(0)
    for name in ("top", "right", "left", "bottom"):
        axes.spines[name].set_visible(False)
    axes.set_xlabel(f"x / {lateral.unit}")
    axes.set_ylabel(f"y / {lateral.unit}")
    return figure, axes


def chart_axes(width_in: float, height_in: float) -> tuple[Figure, Any]:
    """Make a figure with one pair of axes in the style of the page."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _style(axes: Any) -> None:
    axes.patch.set_alpha(0)
    axes.grid(True, color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_linewidth(0.6)
    axes.tick_params(labelsize=FONT_PT, colors=INK, width=0.6, length=3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_size(FONT_PT)
        axis.label.set_color(INK)
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(FuncFormatter(_plain_number))


def _plain_number(value: float, position: int | None = None) -> str:
    """Format a tick label without an offset or a power of ten beside the axis, which readers miss."""
    return f"{value:.9g}".replace("-", "\u2212")
