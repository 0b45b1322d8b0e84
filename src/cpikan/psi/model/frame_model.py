"""What each frame of one wavelength really was: its step, its tilt, its light, and the detector's harmonics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev, legendre

_TRIALS = 256


def fringe_columns(steps_rad: np.ndarray, harmonics: tuple[int, ...] = ()) -> np.ndarray:
    """Build the columns 1, cos(h d), -sin(h d), h = 1 and ``harmonics``, of steps d (..., K): (..., K, 3 + 2 H).

    Frames are these columns times A, B cos(phi), B sin(phi) and the two numbers of each further harmonic.
    """
    columns = [np.ones_like(steps_rad)]
    for order in (1, *harmonics):
        columns += [np.cos(order * steps_rad), -np.sin(order * steps_rad)]
    return np.stack(columns, axis=-1)


def parity_vector(columns: np.ndarray) -> np.ndarray:
    """Find a unit vector (K,) that none of the ``columns`` (K, M) reaches; zeros where they reach everything.

    The sum of K frames that it weighs is free of A, B and phi: noise alone, unless the frames contradict each other. Among the
    vectors of that kind, the parity space of fault detection, one is taken whose smallest entry is large, so that a fault in
    any one frame is seen.
    """
    reached, _, _ = np.linalg.svd(columns)
    free = reached[:, np.linalg.matrix_rank(columns) :]
    if free.shape[1] == 0:
        return np.zeros(len(columns))
    trials = free @ np.random.default_rng(0).standard_normal((free.shape[1], _TRIALS))
    trials /= np.linalg.norm(trials, axis=0)
    return np.asarray(trials[:, np.abs(trials).min(axis=0).argmax()])


_BEYOND = 1.1  # of the box, as the segments of interpolated weights reach across its edge


@dataclass(frozen=True)
class SmoothField:
    """sum_ij ``coefficients``[i, j] T_i(y') T_j(x'), y' and x' in [-1, 1] as y and x go over ``box``, (low, high) of each."""

    box: tuple[tuple[float, float], tuple[float, float]]
    coefficients: np.ndarray

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Evaluate the field at pixels (y, x) of any common shape; well beyond the box, the values near its edge."""
        scaled = [
            np.clip((2 * np.asarray(v, float) - (low + high)) / max(high - low, 1e-12), -_BEYOND, _BEYOND)
            for v, (low, high) in zip((y, x), self.box, strict=True)
        ]
        rows, columns = np.broadcast_arrays(*scaled)
        return np.asarray(chebyshev.chebval2d(rows, columns, self.coefficients))


HIGHEST = 5  # degree of the Legendre polynomials; degree 0 is background


@dataclass(frozen=True)
class Response:
    """Light in DN = sample + sum_j coefficients_dn[j] P_(j + 1)(t), t in [-1, 1] as the sample goes from ``low_dn`` to
    ``high_dn``; beyond them the curve goes on straight."""

    low_dn: float
    high_dn: float
    coefficients_dn: tuple[float, ...]

    def light_dn(self, samples: np.ndarray) -> np.ndarray:
        """Convert samples of any shape to linear light in DN; NaN stays NaN."""
        values = np.asarray(samples, np.float64)
        inside = np.clip(values, self.low_dn, self.high_dn)
        bent = values + np.tensordot(self.coefficients_dn, bends(self.at(inside), len(self.coefficients_dn)), 1)
        return bent + (self.slope(inside) - 1) * (values - inside)

    def slope(self, samples: np.ndarray) -> np.ndarray:
        """Differentiate the light by the sample."""
        inside = np.clip(np.asarray(samples, np.float64), self.low_dn, self.high_dn)
        series = legendre.legder([0.0, *self.coefficients_dn])
        return 1 + legendre.legval(self.at(inside), series) * 2 / (self.high_dn - self.low_dn)

    def at(self, samples: np.ndarray) -> np.ndarray:
        """Convert samples to t."""
        return (2 * samples - (self.low_dn + self.high_dn)) / (self.high_dn - self.low_dn)

    @property
    def is_rising(self) -> bool:
        return bool(self.slope(np.linspace(self.low_dn, self.high_dn, 257)).min() > 0)

    def monomials(self) -> np.ndarray:
        """Compute the factors of 1, t, t^2, ... t^5 of what is added to a sample inside the range."""
        found = legendre.leg2poly([0.0, *self.coefficients_dn])
        return np.pad(found, (0, HIGHEST + 1 - len(found)))


def bends(t: np.ndarray, count: int) -> np.ndarray:
    """Evaluate P_1 .. P_count at t: (count, ...)."""
    return np.moveaxis(legendre.legvander(t, count)[..., 1:], -1, 0)


_LEAST_PARITY = 0.3  # of one pixel's vector beside that of the pivot: what is left of it then has no direction
UNLOCK_ROUNDS = 6  # harmonics of a tenth of the modulation are then taken off to 1e-6 or so


@dataclass(frozen=True)
class FrameModel:
    """Frames k = 0..K-1 of one wavelength: light_k = gain_k (A + q_k B sum_h c_h cos(h (phi + delta_k(r)))) + offset_k.

    delta_k(r) = ``steps_rad``[k] + ``tilt_rad_px``[k] . (r - ``pivot``) + ``defocus_rad_px2``[k] |r - pivot|^2, with r = (y, x)
    in pixels. Frame 0 has step, tilt and defocus zero, gain one and offset zero (the gauge). ``contrast`` are the q_k, that of
    frame 0 is one too (None: all are, as where nothing trembles). ``harmonics`` lists the
    orders beside the first that are free in every pixel, such as (2,); ``locked`` those that are a fixed share of B, as (order,
    share). ``response`` turns samples into light (None: samples are light). ``background`` is A as far as it is smooth, and
    ``background_weight`` how well every pixel keeps to it, in samples of a frame: two frames rest on it.
    """

    steps_rad: np.ndarray
    tilt_rad_px: np.ndarray
    defocus_rad_px2: np.ndarray
    gain: np.ndarray
    offset_dn: np.ndarray
    pivot: tuple[float, float]
    harmonics: tuple[int, ...] = ()
    response: Response | None = None
    locked: tuple[tuple[int, float], ...] = ()
    background: SmoothField | None = None
    background_weight: float = 0.0
    contrast: np.ndarray | None = None

    @classmethod
    def plain(cls, steps_deg: tuple[float, ...]) -> FrameModel:
        """Describe frames that differ by their steps alone."""
        count = len(steps_deg)
        zeros = np.zeros(count)
        steps = np.radians(np.asarray(steps_deg, float))
        return cls(steps, np.zeros((count, 2)), zeros, np.ones(count), zeros, (0.0, 0.0))

    @property
    def fringe_contrast(self) -> np.ndarray:
        """Give the contrast (K,) of each frame's fringes relative to those of frame 0."""
        return np.ones(self.frames) if self.contrast is None else self.contrast

    @property
    def frames(self) -> int:
        return len(self.steps_rad)

    def light_dn(self, samples: np.ndarray) -> np.ndarray:
        """Convert samples of any shape to the light that the detector saw, in DN, float64."""
        return np.asarray(samples, np.float64) if self.response is None else self.response.light_dn(samples)

    @property
    def is_uniform(self) -> bool:
        """Tell whether every pixel saw the same steps."""
        return not (self.tilt_rad_px.any() or self.defocus_rad_px2.any())

    @property
    def is_plain(self) -> bool:
        """Tell whether the same linear weights of the samples serve every pixel."""
        bent = self.response is not None or bool(self.locked) or self.background is not None
        return self.is_uniform and not self.offset_dn.any() and not bent

    def steps_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Compute the steps in rad at pixels (y, x) of any common shape: (K, ...)."""
        dy, dx = np.asarray(y, float) - self.pivot[0], np.asarray(x, float) - self.pivot[1]
        shape = (-1,) + (1,) * np.ndim(dy)
        tilt = self.tilt_rad_px[:, 0].reshape(shape) * dy + self.tilt_rad_px[:, 1].reshape(shape) * dx
        return self.steps_rad.reshape(shape) + tilt + self.defocus_rad_px2.reshape(shape) * (dy**2 + dx**2)

    def design_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Build the columns A, B cos phi, B sin phi, then two per further harmonic: (..., K, 3 + 2 H)."""
        return self._columns_at(y, x, self.harmonics)

    def _columns_at(self, y: np.ndarray, x: np.ndarray, harmonics: tuple[int, ...]) -> np.ndarray:
        columns = fringe_columns(np.moveaxis(self.steps_at(y, x), 0, -1), harmonics) * self.gain[:, None]
        if self.contrast is not None:
            columns[..., 1:] *= self.contrast[:, None]
        return columns

    def parity_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Compute unit vectors (..., K) that sum frames (offsets taken off) to noise alone; zeros where there are none.

        No background, fringe or harmonic reaches them; they vary smoothly, and at the pivot they are `parity_vector`'s.
        """
        harmonics = self.harmonics + tuple(order for order, _ in self.locked)
        kept = parity_vector(self._columns_at(np.asarray(self.pivot[0]), np.asarray(self.pivot[1]), harmonics))
        reached, _ = np.linalg.qr(self._columns_at(y, x, harmonics))
        found = kept - (reached @ (np.swapaxes(reached, -1, -2) @ kept[:, None]))[..., 0]
        size = np.linalg.norm(found, axis=-1, keepdims=True)
        return np.where(size > _LEAST_PARITY, found / np.maximum(size, _LEAST_PARITY), 0.0)

    def weights_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Compute least-squares weights of the frames (offsets taken off) for A, B cos phi, B sin phi: (..., 3, K)."""
        return self._solved(y, x)[..., : self.frames]

    def linear_at(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute weights (..., 3, K), added constants (..., 3) and unit-noise covariance (..., 3, 3) of A, u, v."""
        solved = self._solved(y, x)
        weights = solved[..., : self.frames]
        constants = -weights @ self.offset_dn
        if self.background is not None:
            constants = (
                constants + solved[..., -1] * np.sqrt(self.background_weight) * self.background.at(y, x)[..., None]
            )
        return weights, constants, solved @ np.swapaxes(solved, -1, -2)

    def _solved(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Compute rows A, u, v of the pseudo-inverse of the frames, with any background as one more sample."""
        design = self.design_at(y, x)
        if self.background is not None:
            known = np.zeros((*design.shape[:-2], 1, design.shape[-1]))
            known[..., 0] = np.sqrt(self.background_weight)
            design = np.concatenate([design, known], axis=-2)
        return np.linalg.pinv(design)[..., :3, :]

    def leaks_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Compute what the locked harmonics h add to u + i v: complex (..., H, 2).

        These are factors of B exp(i h phi) and of B exp(-i h phi).
        """
        weights, delta = self.weights_at(y, x), np.moveaxis(self.steps_at(y, x), 0, -1)
        phasor = (weights[..., 1, :] + 1j * weights[..., 2, :]) * (self.gain * self.fringe_contrast)
        pairs = [
            np.stack([(phasor * np.exp(sign * 1j * order * delta)).sum(axis=-1) for sign in (1, -1)], axis=-1)
            * share
            / 2
            for order, share in self.locked
        ]
        return np.stack(pairs, axis=-2)

    def unlocked(self, phasor: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Take the locked harmonics off u + i v (...), by fixed-point iteration."""
        if not self.locked:
            return phasor
        leaks = self.leaks_at(y, x)
        found = phasor
        for _ in range(UNLOCK_ROUNDS):
            size = np.abs(found)
            unit = found / np.maximum(size, 1e-30)
            leak = 0.0
            for i, (order, _) in enumerate(self.locked):
                leak = leak + leaks[..., i, 0] * unit**order + leaks[..., i, 1] * unit.conj() ** order
            found = phasor - size * leak
        return found
