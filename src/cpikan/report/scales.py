"""How lengths become axes and values become colours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import NDArray

from cpikan.units import PixelUm, pixel_pair

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
