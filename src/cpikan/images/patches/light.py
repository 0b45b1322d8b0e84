"""The frames of a stack as light that a height explains: I = A + B cos(4 pi h / lambda + step + tilt . (r - pivot))."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.model.frame_model import FrameModel, fringe_columns

_UNIFORM_RAD = 1e-4  # steps that differ by less over a patch are the same everywhere: below a thousandth of any noise


@dataclass(frozen=True)
class WaveLight:
    """How the K frames of one wavelength were found to be: ``model`` (steps, tilts, light), and how its phase stands to the
    height of the map: phase = 4 pi h / lambda + ``piston_rad`` + ``tilt_rad_px`` . (r - ``centre_px``)."""

    model: FrameModel
    piston_rad: float = 0.0
    tilt_rad_px: tuple[float, float] = (0.0, 0.0)
    centre_px: tuple[float, float] = (0.0, 0.0)

    def light_dn(self, samples: np.ndarray) -> np.ndarray:
        """Turn samples (K, h, w) of the detector as light (K, h, w) float32, gain and offset of each frame taken off; NaN
        is 0."""
        model = self.model
        if model.response is None and not model.offset_dn.any() and (model.gain == 1).all():
            light = samples.astype(np.float32)
        else:
            seen = model.light_dn(samples) - model.offset_dn[:, None, None]
            light = (seen / model.gain[:, None, None]).astype(np.float32)
        return np.nan_to_num(light, copy=False)

    def steps_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Compute what is added to 4 pi h / lambda at pixels (y, x) in each frame, in rad: (K, ...)."""
        return self.model.steps_at(y, x) + self._standing(y, x)

    def linear_about(self, y: float, x: float) -> tuple[np.ndarray, np.ndarray]:
        """Linearise steps (K,) at a pixel, in (-pi, pi], and their slopes (K, 2) in rad per pixel of y and x there."""
        model = self.model
        away = np.array([y - model.pivot[0], x - model.pivot[1]])
        steps = self.steps_at(np.asarray(y), np.asarray(x))
        slopes = model.tilt_rad_px + 2 * model.defocus_rad_px2[:, None] * away + np.asarray(self.tilt_rad_px)
        return np.angle(np.exp(1j * steps)), slopes

    def phasor(self, light: np.ndarray, row: int, column: int) -> np.ndarray:
        """Compute B exp(4 pi i h / lambda), complex (h, w), of light (K, h, w) whose first pixel is (row, column), by least
        squares.

        Raises InputError where fewer than three frames leave it open.
        """
        pixels = _Pixels.of(self.model, light.shape[1:], row, column)
        found = self._first(pixels.solve(light), pixels)
        return found * np.exp(-1j * self._standing(pixels.y, pixels.x))

    def fundamental(self, light: np.ndarray, row: int, column: int) -> np.ndarray:
        """Take the harmonics of the fringes off light (K, h, w), float32, so that A + B cos explains it.

        Harmonics that are free are taken off as fitted to each pixel, others as their share of B.
        """
        model = self.model
        if not (model.harmonics or model.locked):
            return light
        pixels = _Pixels.of(model, light.shape[1:], row, column)
        solved = pixels.solve(light)
        first = self._first(solved, pixels)
        left = light.astype(np.float64)
        for number, order in enumerate(model.harmonics):
            u, v = solved[3 + 2 * number : 5 + 2 * number]
            left -= ((u + 1j * v) * np.exp(1j * order * pixels.steps)).real
        unit = first / np.maximum(np.abs(first), 1e-30)
        for order, share in model.locked:
            left -= share * np.abs(first) * ((unit * np.exp(1j * pixels.steps)) ** order).real
        return left.astype(np.float32)

    def _first(self, solved: np.ndarray, pixels: _Pixels) -> np.ndarray:
        """Compute B exp(i phase) in the gauge of the model, complex (h, w)."""
        return self.model.unlocked(solved[1] + 1j * solved[2], pixels.y, pixels.x)

    def _standing(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        slope_y, slope_x = self.tilt_rad_px
        return self.piston_rad + slope_y * (y - self.centre_px[0]) + slope_x * (x - self.centre_px[1])


@dataclass(frozen=True)
class _Pixels:
    """Pixels ``y``, ``x`` (h, w) of a patch, the ``steps`` there, (K, h, w) or (K, 1, 1), the ``harmonics`` that are fitted
    beside the first, and the ``weight`` (K,) of the frames: noise is that of samples, so frames of more light count for
    more, as in `FrameModel.weights_at`."""

    y: np.ndarray
    x: np.ndarray
    steps: np.ndarray
    harmonics: tuple[int, ...]
    weight: np.ndarray

    @classmethod
    def of(cls, model: FrameModel, shape: tuple[int, ...], row: int, column: int) -> _Pixels:
        if model.frames < 3:
            raise InputError(
                f"{model.frames} frames per wavelength give no phase for each pixel: train on heights alone, or take 3 or "
                "more"
            )
        y, x = np.meshgrid(row + np.arange(float(shape[0])), column + np.arange(float(shape[1])), indexing="ij")
        # the same everywhere: one pixel stands for all
        steps = model.steps_rad[:, None, None] if model.is_uniform else model.steps_at(y, x)
        return cls(y, x, steps, model.harmonics, model.gain)

    def solve(self, light: np.ndarray) -> np.ndarray:
        """Solve the least squares of A, B cos, B sin and two per further harmonic, (n, h, w), for light (K, h, w)."""
        weight = self.weight[:, None]
        if np.ptp(self.steps, axis=(1, 2)).max() < _UNIFORM_RAD:
            inverse = np.linalg.pinv(fringe_columns(self.steps.mean(axis=(1, 2)), self.harmonics) * weight)
            return np.einsum("nk,kyx->nyx", inverse * self.weight, light)
        found = np.empty((3 + 2 * len(self.harmonics), *light.shape[1:]))
        for line in range(light.shape[1]):  # a row at a time: every pixel has normal equations of its own
            design = fringe_columns(np.moveaxis(self.steps[:, line], 0, -1), self.harmonics) * weight
            turned = np.swapaxes(design, -1, -2)
            right = turned @ (light[:, line] * weight).T[..., None].astype(np.float64)
            found[:, line] = np.linalg.solve(turned @ design, right)[..., 0].T
        return found
