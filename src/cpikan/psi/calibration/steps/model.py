"""The model of the samples: every pixel's background, modulation and phase under every frame's step, tilt and light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.calibration.steps.layout import Layout


@dataclass(frozen=True)
class Samples:
    """``values`` (K, P) in units of the modulation, ``waves`` (4, P) the terms 1, y, x, y^2 + x^2 of the step field in
    units of the rim, ``fields`` (M, P) the smooth terms of background and modulation."""

    values: np.ndarray
    waves: np.ndarray
    fields: np.ndarray

    @property
    def frames(self) -> int:
        return self.values.shape[0]

    @property
    def pixels(self) -> int:
        return self.values.shape[1]

    def some(self, which: np.ndarray) -> Samples:
        return Samples(
            np.ascontiguousarray(self.values[:, which]),
            np.ascontiguousarray(self.waves[:, which]),
            np.ascontiguousarray(self.fields[:, which]),
        )

    def wave_terms(self, layout: Layout) -> np.ndarray:
        rows = [0, *([1, 2] if "tilt" in layout.effects else []), *([3] if "defocus" in layout.effects else [])]
        return self.waves if len(rows) == 4 else self.waves[rows]


@dataclass(frozen=True)
class State:
    """Parameters of the frames ``theta`` and of the pixels ``pixel`` (3, P): background, modulation, phase."""

    theta: np.ndarray
    pixel: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Predictions and residuals of a state, in units of the modulation.

    ``rest`` (K, P), ``off_background`` and ``off_modulation`` (P,) departures from the smooth fields; ``shape`` and
    ``slope`` (K, P) the fringe and its derivative, ``higher`` (orders, K, P) the cosines of the harmonics, all three times the
    contrast of the frame.
    """

    rest: np.ndarray
    off_background: np.ndarray
    off_modulation: np.ndarray
    shape: np.ndarray
    slope: np.ndarray
    higher: np.ndarray

    def squares(self) -> np.ndarray:
        """Sum the squares per pixel (3, P): of the samples, of the background, of the modulation."""
        return np.stack([np.einsum("kp,kp->p", self.rest, self.rest), self.off_background**2, self.off_modulation**2])


def evaluate(samples: Samples, layout: Layout, state: State) -> Evaluation:
    """Compare the model with the samples."""
    at = layout.unpack(state.theta)
    background, modulation, phase = state.pixel
    argument = at.wave @ samples.wave_terms(layout) + phase
    cosine, sine = np.cos(argument), np.sin(argument)
    shape, slope = cosine, -sine
    higher = np.empty((len(layout.orders), *cosine.shape))
    for i, order in enumerate(layout.orders):
        if order == 2:
            higher[i], derivative = 2 * cosine * cosine - 1, -4 * sine * cosine
        else:
            higher[i], derivative = (4 * cosine * cosine - 3) * cosine, -3 * (3 - 4 * sine * sine) * sine
        shape = shape + at.harmonic[i] * higher[i]
        slope = slope + at.harmonic[i] * derivative
    if "contrast" in layout.effects:
        contrast = at.contrast[:, None]
        shape, slope, higher = contrast * shape, contrast * slope, contrast * higher
    light = background + modulation * shape
    rest = samples.values - at.gain[:, None] * light - at.offset[:, None]
    return Evaluation(
        rest,
        at.background @ samples.fields - background,
        at.modulation @ samples.fields - modulation,
        shape,
        slope,
        higher,
    )


def pixels_of(samples: Samples, layout: Layout, theta: np.ndarray) -> np.ndarray:
    """Fit background, modulation and phase (3, P) of every pixel under the frames' parameters ``theta``."""
    at = layout.unpack(theta)
    delta = at.wave @ samples.wave_terms(layout)
    gain = at.gain[:, None]
    fringe = gain * at.contrast[:, None]
    columns = np.stack([np.broadcast_to(gain, delta.shape), fringe * np.cos(delta), -fringe * np.sin(delta)])
    normal = np.einsum("akp,bkp->pab", columns, columns) + 1e-9 * np.eye(3)
    right = np.einsum("akp,kp->pa", columns, samples.values - at.offset[:, None])
    background, u, v = np.linalg.solve(normal, right[..., None])[..., 0].T
    return np.stack([background, np.hypot(u, v), np.arctan2(v, u)])
