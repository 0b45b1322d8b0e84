"""Test whether borders of tiles and bands show in an error map: steps across them compared with steps nearby."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.partition import Partition
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.streaming.engine import split_bands

_NEARBY = 24
_FEWEST_NEARBY = 5  # distances whose scatter is worth a standard deviation

Borders = Mapping[str, tuple[str, Sequence[int]]]  # name -> (axis, first pixel after each border)


def borders_of(document: Mapping[str, Any], shape: tuple[int, int]) -> Borders:
    """Find the borders of the tiles and bands that made the map of ``document``.

    They are those of unwrapping, of a network, and of the passes over the frames; what did not run or has no border
    inside the image is left out.
    """
    summary, settings = (_part(document, name) for name in ("summary", "settings"))
    bands = [band.start for band in split_bands(shape[0], _rows(summary))[1:]]
    cuts: dict[str, tuple[Sequence[int], Sequence[int]]] = {"bands": (bands, ())}
    if _part(summary, "unwrapping"):
        cuts["tiles"] = _unwrapping_cuts(settings, shape)
    network = _part(summary, "learned").get("cuts")
    if isinstance(network, list | tuple) and len(network) == 2:
        cuts["network tiles"] = (network[0], network[1])
    return {
        f"{name} along {axis}": (axis, found)
        for name, both in reversed(cuts.items())
        for axis, found in zip("yx", both, strict=True)
        if found
    }


def _part(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = mapping.get(name)
    return found if isinstance(found, Mapping) else {}


def _rows(summary: Mapping[str, Any]) -> int:
    """Read the rows of a band; without that figure, one band."""
    rows = summary.get("band_rows")
    return rows if isinstance(rows, int) and rows > 0 else 2**62


def _unwrapping_cuts(settings: Mapping[str, Any], shape: tuple[int, int]) -> tuple[Sequence[int], Sequence[int]]:
    try:
        asked = ReconstructSettings(tile=settings.get("tile"), overlap=settings.get("overlap"))
        rows, columns = Partition.tiles(shape, asked.unwrap_tile, asked.unwrap_overlap, ramp=0).axes
    except (InputError, TypeError):  # a document from elsewhere
        return (), ()
    return rows.cuts, columns.cuts


@dataclass(frozen=True)
class SeamCheck:
    """Mean |error step| in nm between neighbours along one axis, folded by the distance to the nearest of ``borders``.

    ``folded_nm[i]`` belongs to the step into the pixel ``distance_px[i]`` places after a border, so a seam is a peak at
    distance 0. ``deviation`` is the excess at the borders in standard deviations of what as many other steps scatter.
    """

    borders: int
    distance_px: NDArray[np.int64]
    folded_nm: NDArray[np.float64]
    border_nm: float
    nearby_nm: float
    deviation: float

    @property
    def ratio(self) -> float:
        """Compute the ratio of the mean step across borders to the mean step nearby."""
        if self.nearby_nm > 0:
            return self.border_nm / self.nearby_nm
        return float("inf") if self.border_nm > 0 else 1.0

    @property
    def visible(self) -> bool:
        """Tell whether a seam shows: beyond five standard deviations and five per cent."""
        return self.deviation > 5 and self.ratio > 1.05


class SeamSums:
    """Sums of |error[i] - error[i - 1]| per row and per column of a map of ``shape``, fed with bands from top to
    bottom.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._along = {"y": np.zeros((2, shape[0])), "x": np.zeros((2, shape[1]))}
        self._last: NDArray[np.float64] | None = None

    def add(self, start: int, error_nm: NDArray[np.float64]) -> None:
        """Take the errors in nm of rows [start, start + n), NaN where a step must not count."""
        across = np.abs(np.diff(error_nm, axis=1))
        self._count("x", slice(1, None), across, axis=0)
        rows = error_nm if self._last is None else np.concatenate([self._last, error_nm])
        steps = np.abs(np.diff(rows, axis=0))
        first = start + 1 if self._last is None else start
        self._count("y", slice(first, first + len(steps)), steps, axis=1)
        self._last = error_nm[-1:].copy()

    def _count(self, axis_name: str, where: slice, steps: NDArray[np.float64], axis: int) -> None:
        finite = np.isfinite(steps)
        self._along[axis_name][0, where] += np.where(finite, steps, 0).sum(axis)
        self._along[axis_name][1, where] += finite.sum(axis)

    def checks(self, borders: Borders) -> dict[str, SeamCheck]:
        """Compare the steps across each family of borders with those nearby; families too dense for that are left out."""
        found = {name: self._check(axis, cuts) for name, (axis, cuts) in borders.items()}
        return {name: check for name, check in found.items() if check is not None}

    def _check(self, axis_name: str, cuts: Sequence[int]) -> SeamCheck | None:
        sums, counts = self._along[axis_name]
        away = _distance(sums.size, np.asarray(cuts))
        near = np.abs(away) <= _NEARBY
        place = away[near] + _NEARBY
        folded_counts = np.bincount(place, counts[near], 2 * _NEARBY + 1)
        folded = np.bincount(place, sums[near], 2 * _NEARBY + 1) / np.where(folded_counts > 0, folded_counts, np.nan)
        distance = np.arange(-_NEARBY, _NEARBY + 1)
        nearby = folded[(np.abs(distance) >= 2) & np.isfinite(folded)]
        if not np.isfinite(folded[_NEARBY]) or nearby.size < _FEWEST_NEARBY:
            return None
        border, mean, scatter = float(folded[_NEARBY]), float(nearby.mean()), float(nearby.std(ddof=1))
        excess = border - mean
        deviation = excess / scatter if scatter > 0 else float("inf") if excess > 0 else 0.0
        return SeamCheck(len(cuts), distance, folded, border, mean, deviation)


def _distance(size: int, cuts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute how far each of ``size`` pixels lies behind its nearest border, negative before the border."""
    pixels = np.arange(size)
    behind = np.searchsorted(cuts, pixels, side="right")
    last, following = cuts[np.maximum(behind - 1, 0)], cuts[np.minimum(behind, cuts.size - 1)]
    return np.where(np.abs(pixels - last) <= np.abs(following - pixels), pixels - last, pixels - following)
