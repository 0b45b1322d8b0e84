"""The model of the samples, and the numbers that describe the frames: where each stands in the vector of parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from cpikan.psi.calibration.parameter_vector import ParameterVector

Effect = Literal["tilt", "defocus", "gain", "offset", "contrast", "harmonic2", "harmonic3"]
EFFECTS: tuple[Effect, ...] = ("tilt", "defocus", "gain", "offset", "contrast", "harmonic2", "harmonic3")
# standard deviations of weak priors (rad at the rim, shares of one, shares of B): they only keep what the data leave
# open from running away, and a parameter that is hardly better known than this is not determined
PRIOR: dict[str, float] = {
    "step": 10.0,
    "tilt": 3.0,
    "defocus": 3.0,
    "gain": 0.5,
    "offset": 1.0,
    "contrast": 0.5,
    "harmonic2": 0.5,
    "harmonic3": 0.5,
}


@dataclass(frozen=True)
class Parameters:
    """The numbers of a vector by what they mean: ``wave`` (K, waves) coefficients of the step field, ``gain``, ``offset``
    and ``contrast`` (K,), ``harmonic`` one ratio per order, ``background`` and ``modulation`` coefficients of smooth fields."""

    wave: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    contrast: np.ndarray
    harmonic: np.ndarray
    background: np.ndarray
    modulation: np.ndarray


@dataclass(frozen=True)
class Layout(ParameterVector):
    """Places of the numbers in the vector of parameters; frame 0 is the reference.

    First all numbers of frame 1, then of frame 2 and so on: a step and what ``effects`` add. Then one number per harmonic,
    then ``terms`` of the smooth background and as many of the modulation::

        step tilt tilt defocus gain offset contrast | step tilt ... contrast | harmonic2 harmonic3 | background ... | ...
        <--------------- per_frame --------------->
        <----------------------------- of_frames -------------------------->
        <------------------------------------------ own -------------------------------------->
    """

    frames: int
    effects: frozenset[Effect]
    terms: int

    @property
    def waves(self) -> int:
        """Count the coefficients of a frame's step field."""
        return 1 + 2 * ("tilt" in self.effects) + ("defocus" in self.effects)

    @property
    def per_frame(self) -> int:
        return self.waves + len({"gain", "offset", "contrast"} & self.effects)

    @property
    def orders(self) -> tuple[int, ...]:
        """List the orders of the harmonics that are fitted."""
        return tuple(order for order in (2, 3) if f"harmonic{order}" in self.effects)

    @property
    def of_frames(self) -> int:
        """Count the parameters that belong to single frames."""
        return (self.frames - 1) * self.per_frame

    @property
    def own(self) -> int:
        """Count the parameters without those of the smooth fields."""
        return self.of_frames + len(self.orders)

    @property
    def light(self) -> tuple[slice, slice]:
        """Locate the smooth background and modulation in the vector."""
        middle = self.own + self.terms
        return slice(self.own, middle), slice(middle, middle + self.terms)

    @cached_property
    def blocks(self) -> dict[str, np.ndarray]:
        """Locate "step" (K - 1, 1), each effect, "tilt" being (K - 1, 2), and both smooth fields (terms,)."""
        frame = self.of_frame
        column = 0
        found: dict[str, np.ndarray] = {}
        for name in ("step", "tilt", "defocus", "gain", "offset", "contrast"):
            if name == "step" or name in self.effects:
                width = 2 if name == "tilt" else 1
                found[name] = frame[:, column : column + width]
                column += width
        found |= {f"harmonic{order}": np.array([self.of_frames + i]) for i, order in enumerate(self.orders)}
        names = ("background", "modulation")
        return found | {n: np.arange(s.start, s.stop) for n, s in zip(names, self.light, strict=True)}

    @property
    def of_frame(self) -> np.ndarray:
        """Locate the numbers of each frame (K - 1, per frame) in the vector."""
        return np.arange(self.of_frames).reshape(self.frames - 1, self.per_frame)

    @property
    def groups(self) -> tuple[str, ...]:
        """List the blocks that describe frames: the step and the effects."""
        return ("step", *(effect for effect in EFFECTS if effect in self.effects))

    def without(self, effect: Effect) -> Layout:
        return replace(self, effects=self.effects - {effect})

    def prior_precision(self) -> np.ndarray:
        """Give the precisions of the weak priors (n,), zero for the smooth fields."""
        precision = np.zeros(self.size)
        for name in self.groups:
            precision[self.blocks[name]] = PRIOR[name] ** -2
        return precision

    def neutral(self) -> np.ndarray:
        """Make the parameters of frames that differ in nothing."""
        theta = np.zeros(self.size)
        for name in {"gain", "contrast"} & self.effects:
            theta[self.blocks[name]] = 1.0
        return theta

    def started(self, steps_rad: np.ndarray, tilt_rad: np.ndarray) -> np.ndarray:
        """Make parameters of frames with these steps (K - 1,) and, where they are fitted, tilts (K - 1, 2), in rad."""
        theta = self.neutral()
        theta[self.blocks["step"][:, 0]] = steps_rad
        if "tilt" in self.effects:
            theta[self.blocks["tilt"]] = tilt_rad
        return theta

    def table(self, vector: np.ndarray, name: str) -> np.ndarray:
        """Tabulate a block of a vector for all frames (K, width); zeros for frame 0 and for what is not fitted."""
        table = np.zeros((self.frames, 2 if name == "tilt" else 1))
        if name in self.blocks:
            table[1:] = vector[self.blocks[name]]
        return table

    def unpack(self, theta: np.ndarray) -> Parameters:
        wave = np.zeros((self.frames, self.waves))
        wave[1:] = theta[self.of_frame[:, : self.waves]]
        gain, contrast = np.ones(self.frames), np.ones(self.frames)
        for name, numbers in (("gain", gain), ("contrast", contrast)):
            if name in self.blocks:
                numbers[1:] = theta[self.blocks[name][:, 0]]
        offset = self.table(theta, "offset")[:, 0]
        background, modulation = self.light
        return Parameters(
            wave, gain, offset, contrast, theta[self.of_frames : self.own], theta[background], theta[modulation]
        )

    def moved_to(self, other: Layout, theta: np.ndarray) -> np.ndarray:
        """Move parameters to another layout; what this one lacks is neutral."""
        return self.moved(theta, other, other.neutral())


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
