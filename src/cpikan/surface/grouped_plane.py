"""Piston per connected component and one tilt for all: the datum of a map whose pieces have no common height."""

from __future__ import annotations

import numpy as np


class GroupedPlaneFit:
    """Least squares of a plane whose constant differs by group, fed with rows; group numbers run from 1 to ``groups``.

    With one group this is the ordinary plane. Coordinates are pixels from the centre of the image of ``shape`` (H, W).
    """

    def __init__(self, shape: tuple[int, int], groups: int, tilt: bool) -> None:
        self._shape, self._groups, self._tilt = shape, groups, tilt
        self._sums = np.zeros((4, groups + 1))  # n, y, x, h by group
        self._products = np.zeros(5)  # yy, yx, xx, yh, xh over all groups

    def add(self, start: int, height_nm: np.ndarray, group: np.ndarray | None) -> None:
        """Take rows [start, start + n) of heights (NaN ignored) and their groups (None: all one)."""
        height, width = self._shape
        valid = np.isfinite(height_nm)
        y, x = np.nonzero(valid)
        values = height_nm[y, x].astype(np.float64)
        number = np.ones(values.size, np.intp) if group is None else group[y, x].astype(np.intp)
        dy, dx = start + y - (height - 1) / 2, x - (width - 1) / 2
        for row, weight in enumerate((None, dy, dx, values)):
            self._sums[row] += np.bincount(number, weight, minlength=self._groups + 1)
        if self._tilt:
            self._products += [dy @ dy, dy @ dx, dx @ dx, dy @ values, dx @ values]

    def solve(self) -> GroupedPlane:
        """The constants per group and the slopes; zero where nothing was fitted."""
        count = np.maximum(self._sums[0], 1)
        n, y, x, h = self._sums[:4]
        slope = np.zeros(2)
        if self._tilt and n.sum() > 0:
            yy, yx, xx, yh, xh = self._products
            within = np.array([[yy, yx], [yx, xx]]) - np.array(
                [[(y * y / count).sum(), (y * x / count).sum()], [(y * x / count).sum(), (x * x / count).sum()]]
            )
            right = np.array([yh - (y * h / count).sum(), xh - (x * h / count).sum()])
            slope = np.linalg.lstsq(within, right, rcond=1e-12)[0]
        constants = np.where(n > 0, (h - slope[0] * y - slope[1] * x) / count, 0.0)
        return GroupedPlane(self._shape, constants, (float(slope[0]), float(slope[1])))


class GroupedPlane:
    """What `GroupedPlaneFit` found: ``constants_nm`` by group number and ``slope`` (nm per pixel in y, x)."""

    def __init__(self, shape: tuple[int, int], constants_nm: np.ndarray, slope: tuple[float, float]) -> None:
        self.shape, self.constants_nm, self.slope = shape, constants_nm, slope

    def take_from(self, start: int, height_nm: np.ndarray, group: np.ndarray | None) -> np.ndarray:
        """Heights of rows from ``start`` without the plane, float32."""
        rows, width = height_nm.shape
        dy = start + np.arange(rows)[:, None] - (self.shape[0] - 1) / 2
        dx = np.arange(width)[None, :] - (self.shape[1] - 1) / 2
        constant = self.constants_nm[1] if group is None else self.constants_nm[group]
        return (height_nm - (constant + self.slope[0] * dy + self.slope[1] * dx)).astype(np.float32)
