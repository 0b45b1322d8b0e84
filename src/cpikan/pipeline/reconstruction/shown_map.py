"""What a network is shown of a map: its heights without their slow form, the noise they are counted in, phases, modulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cpikan.images.features import FeatureSpec, noise_unit_nm
from cpikan.psi.model.flags import Flag
from cpikan.surface.forms.slow_form import SlowForm

_SAMPLED_ROWS = 128  # pairs of rows that the form and the noise unit are estimated on
_INVALID = np.uint8(Flag.INVALID)
_STEEP = 1.0  # sigmas that a form rises from pixel to pixel: less does not hide the noise
MapRows = Callable[[int, int], dict[str, np.ndarray]]  # rows [start, stop) by quantity
PhaseRows = Callable[[int, int], np.ndarray]  # rows [start, stop) as (L, stop - start, W), radians


@dataclass(frozen=True)
class ShownMap:
    """Planes of a map for a network of ``spec``: ``rows`` of its quantities, ``phases`` as wrapped.

    ``form`` is taken off the heights where it rises so steeply that noise would not show beside it, else None; ``unit_nm`` is
    the noise of what is left and ``brightness`` the median modulation.
    """

    spec: FeatureSpec
    rows: MapRows
    phases: PhaseRows
    shape: tuple[int, int]
    form: SlowForm | None
    unit_nm: float
    brightness: float

    @classmethod
    def of(cls, spec: FeatureSpec, rows: MapRows, phases: PhaseRows, shape: tuple[int, int]) -> ShownMap:
        """Estimate form, unit and brightness from pairs of rows spread over the image."""
        sample = _Sample.of(rows, shape[0])
        form: SlowForm | None = SlowForm.fitted(sample.height_nm, sample.valid, sample.firsts, shape)
        assert form is not None
        if form.slope_nm <= _STEEP * sample.sigma_nm_median:
            form = None
        return cls(spec, rows, phases, shape, form, sample.unit_nm(form, spec.periods[0]), sample.brightness)

    @property
    def planes(self) -> tuple[int, int, int]:
        """Count the planes, rows and columns."""
        return (3 + len(self.spec.wavelengths_nm) + int(self.spec.modulation), *self.shape)

    def fill(self, start: int, stop: int, out: np.ndarray) -> None:
        """Fill rows [start, stop) of all planes: height, sigma, validity, then phases and modulation as the spec asks."""
        part, waves = self.rows(start, stop), len(self.spec.wavelengths_nm)
        valid = _measured(part)
        form = None if self.form is None else self.form.rows(start, stop)
        out[0] = part["height_nm"] if form is None else part["height_nm"] - form
        out[1], out[2] = part["sigma_nm"], valid
        np.copyto(out[:2], 0, where=~valid)  # NaN would spread through the convolutions
        if waves:
            out[3 : 3 + waves] = np.nan_to_num(self.phases(start, stop))
            if form is not None:
                for plane, wavelength in zip(out[3 : 3 + waves], self.spec.wavelengths_nm, strict=True):
                    turns = form * (2 / wavelength)
                    plane -= 2 * np.pi * (turns - turns.round())
        if self.spec.modulation:
            out[3 + waves] = part["modulation"] / np.float32(self.brightness)


def _measured(part: dict[str, np.ndarray]) -> np.ndarray:
    return ((part["flags"] & _INVALID) == 0) & np.isfinite(part["height_nm"])


@dataclass(frozen=True)
class _Sample:
    """Pairs of rows (pairs, 2, W): heights, sigmas, what is valid of them, their first rows in the image."""

    firsts: list[int]
    height_nm: np.ndarray
    sigma_nm: np.ndarray
    valid: np.ndarray
    brightness: float

    @classmethod
    def of(cls, rows: MapRows, height: int) -> _Sample:
        firsts = sorted({i * max(height - 2, 0) // max(_SAMPLED_ROWS - 1, 1) for i in range(_SAMPLED_ROWS)})
        parts = [rows(first, min(first + 2, height)) for first in firsts]
        heights, sigmas = (np.stack([part[name] for part in parts]) for name in ("height_nm", "sigma_nm"))
        valid = np.stack([_measured(part) for part in parts])
        power = np.stack([part["modulation"] for part in parts])[valid]
        return cls(firsts, heights, sigmas, valid, float(np.median(power)) if len(power) else 1.0)

    @property
    def sigma_nm_median(self) -> float:
        return float(np.median(self.sigma_nm[self.valid])) if self.valid.any() else 0.0

    def unit_nm(self, form: SlowForm | None, period: float) -> float:
        """Compute the noise that periods are counted in, the form taken off."""
        import torch

        heights = self.height_nm
        if form is not None:
            count = heights.shape[1]
            heights = heights - np.stack([form.rows(first, first + count) for first in self.firsts])
            heights = heights.astype(np.float32)
        # pairs of rows lie on each other: differences down the columns are those of neighbours within a pair
        pairs = [
            torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, 0, 1))) for a in (heights, self.sigma_nm, self.valid)
        ]
        height_nm, sigma_nm, inside = (pair.reshape(pair.shape[0], -1) for pair in pairs)
        return noise_unit_nm(height_nm, sigma_nm, inside, period)
