"""Do the borders of tiles and bands show in an error map: steps across them compared with steps nearby."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DEFAULT_PERIOD = 512  # the default tile
_NEARBY = 24


@dataclass(frozen=True)
class SeamCheck:
    """Mean |error step| in nm between neighbours along one axis, folded by the distance to a border.

    ``folded_nm[d]`` belongs to the step into the pixel d places after a border, so a seam is a peak at d = 0.
    ``deviation`` is the excess at the borders in standard deviations of what as many other steps would scatter.
    """

    period: int
    folded_nm: NDArray[np.float64]
    border_nm: float
    nearby_nm: float
    deviation: float

    @property
    def ratio(self) -> float:
        return self.border_nm / self.nearby_nm if self.nearby_nm > 0 else 1.0


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

    def checks(self, settings: Mapping[str, Any]) -> dict[str, SeamCheck]:
        """The check along each axis that has a border inside the image: tiles along both, bands along y."""
        tile = _period(settings, "tile")
        found = {
            "tiles along x": self._check("x", tile),
            "tiles along y": self._check("y", tile),
            "bands along y": self._check("y", _period(settings, "band_rows", default=0)),
        }
        return {name: check for name, check in found.items() if check is not None}

    def _check(self, axis_name: str, period: int) -> SeamCheck | None:
        sums, counts = self._along[axis_name]
        if period < 8 or period >= sums.size:
            return None
        phase = np.arange(sums.size) % period
        folded_counts = np.bincount(phase, counts, period)
        folded = np.bincount(phase, sums, period) / np.where(folded_counts > 0, folded_counts, np.nan)
        off = np.minimum(np.arange(period), period - np.arange(period))
        nearby = folded[(off >= 2) & (off <= _NEARBY) & np.isfinite(folded)]
        if not np.isfinite(folded[0]) or nearby.size < 2:
            return None
        border, mean, scatter = float(folded[0]), float(nearby.mean()), float(nearby.std(ddof=1))
        return SeamCheck(period, folded, border, mean, (border - mean) / scatter if scatter > 0 else 0.0)


def _period(settings: Mapping[str, Any], name: str, default: int = _DEFAULT_PERIOD) -> int:
    value = settings.get(name)
    return int(value) if isinstance(value, int | float) and value >= 2 else default
