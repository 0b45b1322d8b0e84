"""What each frame of one wavelength really was: its step, its tilt, its light, and the detector's harmonics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.response import Response


@dataclass(frozen=True)
class FrameModel:
    """Frames k = 0..K-1 of one wavelength: light_k = gain_k (A + B sum_h c_h cos(h (phi + delta_k(r)))) + offset_k.

    delta_k(r) = ``steps_rad``[k] + ``tilt_rad_px``[k] . (r - ``pivot``) + ``defocus_rad_px2``[k] |r - pivot|^2, with r = (y, x)
    in pixels. Frame 0 has step, tilt and defocus zero, gain one and offset zero (the gauge). ``harmonics`` lists the
    orders beside the first that the fit lets free in every pixel, such as (2,). ``response`` turns samples into light
    (None: samples are light).
    """

    steps_rad: np.ndarray
    tilt_rad_px: np.ndarray
    defocus_rad_px2: np.ndarray
    gain: np.ndarray
    offset_dn: np.ndarray
    pivot: tuple[float, float]
    harmonics: tuple[int, ...] = ()
    response: Response | None = None

    @classmethod
    def plain(cls, steps_deg: tuple[float, ...]) -> FrameModel:
        """Frames that differ by their steps alone."""
        count = len(steps_deg)
        zeros = np.zeros(count)
        steps = np.radians(np.asarray(steps_deg, float))
        return cls(steps, np.zeros((count, 2)), zeros, np.ones(count), zeros, (0.0, 0.0))

    @property
    def frames(self) -> int:
        return len(self.steps_rad)

    def light_dn(self, samples: np.ndarray) -> np.ndarray:
        """What the detector saw, float64, for samples of any shape."""
        return np.asarray(samples, np.float64) if self.response is None else self.response.light_dn(samples)

    @property
    def is_uniform(self) -> bool:
        """Whether every pixel saw the same steps."""
        return not (self.tilt_rad_px.any() or self.defocus_rad_px2.any())

    def steps_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Steps in rad at pixels (y, x) of any common shape: (K, ...)."""
        dy, dx = np.asarray(y, float) - self.pivot[0], np.asarray(x, float) - self.pivot[1]
        shape = (-1,) + (1,) * np.ndim(dy)
        tilt = self.tilt_rad_px[:, 0].reshape(shape) * dy + self.tilt_rad_px[:, 1].reshape(shape) * dx
        return self.steps_rad.reshape(shape) + tilt + self.defocus_rad_px2.reshape(shape) * (dy**2 + dx**2)

    def design_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Columns A, B cos phi, B sin phi, then two per further harmonic: (..., K, 3 + 2 H)."""
        delta = np.moveaxis(self.steps_at(y, x), 0, -1)
        columns = [np.ones_like(delta)]
        for order in (1, *self.harmonics):
            columns += [np.cos(order * delta), -np.sin(order * delta)]
        return np.stack(columns, axis=-1) * self.gain[:, None]

    def weights_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Least-squares weights of the frames (offsets taken off) for A, B cos phi, B sin phi: (..., 3, K)."""
        return np.linalg.pinv(self.design_at(y, x))[..., :3, :]
