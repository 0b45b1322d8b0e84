"""Piston per connected component and one form for all: the datum of a map whose pieces have no common height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy.typing import NDArray

from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.forms.chords import Chords, group_sums
from cpikan.surface.forms.form import ModeSums, fitted_modes, surface_rows
from cpikan.surface.forms.zernike import Mode, ZernikeBasis, noll_index

FloatArray = NDArray[np.float64]

_LISTED = 100  # pistons in a summary
_WORK_VALUES = 1 << 21  # series of the modes along the chords held at once: 16 MiB


@dataclass(frozen=True)
class GroupedForm:
    """What `GroupedFormFit` found: ``constants_nm`` by group number (0 is no group) and a form without piston for all."""

    pupil: Circle
    basis: ZernikeBasis
    coefficients_nm: tuple[float, ...]
    constants_nm: FloatArray

    def rows(self, start: int, wanted: Bool[np.ndarray, "rows w"]) -> Float64[np.ndarray, "rows w"]:
        """Evaluate the form without constants in rows from ``start``, (rows, W) float64, NaN outside ``wanted``."""
        if not self.basis.modes:
            return np.where(wanted, 0.0, np.nan)
        return surface_rows(self.basis, self.pupil, np.array([self.coefficients_nm]), start, wanted)[0]

    def remove(
        self, start: int, height_nm: Float[np.ndarray, "rows w"], group: Int[np.ndarray, "rows w"] | None = None
    ) -> Float64[np.ndarray, "rows w"]:
        """Subtract form and constants from rows of heights from ``start``, float64; groups as in `GroupedFormFit`."""
        heights = np.asarray(height_nm, np.float64)
        heights = heights - (self.constants_nm[1] if group is None else self.constants_nm[group])
        return heights - self.rows(start, np.isfinite(heights)) if self.basis.modes else heights

    def at(
        self, rows: Int[np.ndarray, "*pixels"], columns: Int[np.ndarray, "*pixels"]
    ) -> Float64[np.ndarray, "*pixels"]:
        """Evaluate the form with the constant of the first group at single pixels, nm."""
        return self.constants_nm[1] + np.array(self.coefficients_nm) @ self.basis.values(
            *self.pupil.coordinates(rows, columns)
        )

    def coefficient_nm(self, mode: Mode) -> float:
        """Return the coefficient of a mode in nm RMS, 0 when it was not asked for."""
        return dict(zip(self.basis.modes, self.coefficients_nm, strict=True)).get(mode, 0.0)

    def without_piston(self) -> GroupedForm:
        """Copy the form with all constants zero."""
        return GroupedForm(self.pupil, self.basis, self.coefficients_nm, np.zeros_like(self.constants_nm))

    def summary(self, removed: Sequence[str]) -> dict[str, Any]:
        """Summarise what was removed, JSON-able: terms, pupil in pixels, coefficients in nm, Noll numbers, pistons.

        The first hundred groups are listed.
        """
        return {
            "removed": list(removed),
            "circle_pixels": self.pupil.numbers,
            "normalisation": "unit RMS over the pupil; m >= 0 cos, m < 0 sin, angle from +x to +y",
            "coefficients_nm": {
                f"Z({n},{m})": value for (n, m), value in zip(self.basis.modes, self.coefficients_nm, strict=True)
            },
            "noll": {f"Z({n},{m})": noll_index((n, m)) for n, m in self.basis.modes},
            "pistons_nm": self.constants_nm[1 : _LISTED + 1].tolist(),
        }


def no_form(groups: int = 1) -> GroupedForm:
    """Make a form with nothing to take off."""
    return GroupedForm(Circle(0.0, 0.0, 1.0), ZernikeBasis(()), (), np.zeros(groups + 1))


class GroupedFormFit:
    """Least squares of ``modes`` on a map whose constant differs by group, fed with rows; groups count from 1.

    A constant per group is always fitted, whether the modes have the piston or not. With one group this is `FormFit`.
    Only pixels in the pupil count.
    """

    def __init__(self, modes: Sequence[Mode], pupil: Circle, groups: int = 1) -> None:
        self._sums = ModeSums(fitted_modes(modes), pupil)
        self._groups = groups
        self._of_mode = np.zeros((groups + 1, len(self._sums.basis.modes)))
        self._of_height = np.zeros(groups + 1)

    @property
    def pixels(self) -> int:
        """Count the pixels that were fitted."""
        return self._sums.pixels

    @property
    def fewest(self) -> int:
        """Count the pixels needed to determine the terms: one each, and one for every further group that has any."""
        return len(self._sums.basis.modes) + max(0, int(np.count_nonzero(self._of_mode[:, 0])) - 1)

    def add(
        self,
        start: int,
        height_nm: Float[np.ndarray, "rows w"],
        group: Int[np.ndarray, "rows w"] | None = None,
        mask: Bool[np.ndarray, "rows w"] | None = None,
    ) -> None:
        """Take rows [start, start + n) of heights (NaN ignored), their groups (None: all one; 0: none) and a mask."""
        if self._groups == 1 or group is None:
            self._sums.add(start, height_nm[None], mask)
            return
        rows, width = height_nm.shape
        pupil, basis = self._sums.pupil, self._sums.basis
        weight = np.isfinite(height_nm) & (group > 0) & pupil.inside(start, start + rows, width)
        if mask is not None:
            weight &= mask
        self._sums.add(start, height_nm[None], weight)
        used = np.flatnonzero(weight.any(1))
        step = max(1, _WORK_VALUES // (2 * len(basis.modes) * (1 + max(n for n, _ in basis.modes))))
        for first in range(int(used[0]), int(used[-1]) + 1, step) if used.size else ():
            part = slice(first, min(first + step, int(used[-1]) + 1))
            chords = Chords.of(pupil, start + first, part.stop - first, width)
            series = np.ascontiguousarray(chords.series(basis).transpose(1, 2, 0, 3))
            parts = (np.ascontiguousarray(array[part]) for array in (height_nm, group, weight))
            group_sums(*parts, chords.split, chords.centre, chords.half, series, self._of_mode, self._of_height)

    def solve(self) -> GroupedForm:
        """Solve for the constants per group and the form that all share; zero where nothing was fitted."""
        normal, right, modes = self._sums.normal, self._sums.right[0], self._sums.basis.modes
        if self._groups == 1:
            self._of_mode[1], self._of_height[1] = normal[0], right[0]
        sums, heights = self._of_mode, self._of_height
        count = np.where(sums[:, 0] > 0, sums[:, 0], 1.0)
        # the constants are eliminated: moments about the mean of each group
        square = (normal - (sums.T / count) @ sums)[1:, 1:]
        cross = (right - (heights / count) @ sums)[1:]
        size, direction = np.linalg.eigh(square)
        # a direction without spread within the groups gets nothing: its eigenvalue is rounding of the full moment
        large = size > 1e-12 * max(np.trace(normal), 1.0)
        shared = direction @ (np.divide(1.0, size, out=np.zeros_like(size), where=large) * (direction.T @ cross))
        constants = np.where(sums[:, 0] > 0, (heights - sums[:, 1:] @ shared) / count, 0.0)
        basis = ZernikeBasis(modes[1:], self._sums.pupil.obscuration)
        return GroupedForm(self._sums.pupil, basis, tuple(float(value) for value in shared), constants)
