"""A height map in a notebook: a picture of at most 240 pixels a side and key numbers, from one sweep in bands."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cpikan.notebook import card
from cpikan.surface.sums.tallies import HeightTally
from cpikan.units import pixel_pair

if TYPE_CHECKING:
    from cpikan.pipeline.maps.height_map import HeightMap

_SIDE = 240


@dataclass(frozen=True)
class Overview:
    """Every n-th pixel of the heights in nm, the ``limits_nm`` that show them, and sums over all pixels."""

    heights: NDArray[np.float64]
    limits_nm: tuple[float, float]
    tally: HeightTally


def overview(height_map: HeightMap) -> Overview:
    """Sweep a map once."""
    from cpikan.pipeline.maps.height_map import MapRows

    rows = MapRows(height_map)
    step = max(1, -(-max(rows.shape) // _SIDE))
    tally, taken = HeightTally(), []
    for band, heights in rows.heights():
        tally.add(heights)
        taken.append(np.asarray(heights[-band.start % step :: step, ::step], np.float64))
    shown = np.concatenate(taken)
    finite = shown[np.isfinite(shown)]
    low, high = (float(value) for value in np.percentile(finite, (0.2, 99.8))) if finite.size else (0.0, 1.0)
    return Overview(shown, (low, high if high > low else low + 1.0), tally)


def map_html(height_map: HeightMap) -> str:
    """Write the card of a map; pixels without a value are see-through."""
    seen = overview(height_map)
    height, width = height_map.shape
    pixel = pixel_pair(height_map.pixel_um)
    summary = height_map.summary
    size = f"{height} × {width}" if pixel is None else f"{height} × {width} of {pixel[0]:g} × {pixel[1]:g} µm"
    rows = [("pixels", size), ("valid", f"{seen.tally.pixels / (height * width):.2%}")]
    if seen.tally.pv_nm is not None and seen.tally.rms_nm is not None:
        rows += [("PV", f"{seen.tally.pv_nm:.4g} nm"), ("RMS", f"{seen.tally.rms_nm:.4g} nm")]
    if summary.get("sigma_nm_median") is not None:
        rows.append(("sigma, median", f"{summary['sigma_nm_median']:.3g} nm"))
    if height_map.removed:
        rows.append(("removed", ", ".join(height_map.removed)))
    rows.append(("quantities", ", ".join(height_map.arrays)))
    warnings = summary.get("warnings") or ()
    if warnings:
        rows.append(("warnings", f"{len(warnings)}: see summary['warnings']"))
    return card(height_map.path.name, rows, _png(seen), f"map of the height, {height} by {width} pixels")


def _png(seen: Overview) -> bytes:
    import matplotlib as mpl
    from PIL import Image

    low, high = seen.limits_nm
    colours = mpl.colormaps["viridis"].with_extremes(bad=(0, 0, 0, 0))
    shown = np.ma.masked_invalid((seen.heights - low) / (high - low))
    buffer = io.BytesIO()
    Image.fromarray(colours(shown, bytes=True)).save(buffer, format="png")
    return buffer.getvalue()
