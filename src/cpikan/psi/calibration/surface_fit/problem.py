"""The least-squares problem of a subsample: terms, priors, and what Levenberg-Marquardt asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpikan.learning.normal_equations import NormalEquations
from cpikan.learning.robust import SQUARES, Loss
from cpikan.psi.calibration.smooth_terms import features, terms
from cpikan.psi.calibration.surface_fit.frame_residuals import (
    FrameLayout,
    FrameResiduals,
    LinearPhase,
    Moments,
    PhaseForm,
    SeriesFrames,
)

# standard deviations of Gaussian priors: they only bound what the frames leave open
_LIGHT_SHARE = 0.5  # of a first-degree mode of A and B, as a share of its mean; degree d has a share / d^1.5
_LIGHT_MEAN = 3.0
_TILT_RAD = 1.5  # at the edge of the field
_GAIN = 0.05
_SECOND = 0.2  # of B
ROUGH_DEGREE = 3  # from which terms of the phase are as large as the frames show
_PHASE_RAD = 60.0  # of a first-degree mode of the phase
_STEP_RAD = {"trusted": 1e-4, "nominal": np.radians(30.0), "unknown": 20.0}


@dataclass(frozen=True)
class Spreads:
    """Standard deviations of the terms of A, B (as shares of their means) and the phase (rad): ``logs`` (3, 2) holds the
    logarithm for the first degree and what each further degree adds, None a fixed wide prior; ``temperature`` what the
    squares of the residuals are divided by, the prior counting so much more beside them."""

    logs: np.ndarray | None = None
    temperature: float = 1.0

    def of_light(self, which: int, size: np.ndarray) -> np.ndarray:
        """Give the standard deviations of terms of degrees ``size`` of A (0) or B (1)."""
        rest = np.maximum(size, 1)
        wide = _LIGHT_SHARE * rest**-1.5 if self.logs is None else np.exp(self.logs[which] @ [rest**0, rest - 1])
        return np.asarray(np.where(size == 0, _LIGHT_MEAN, wide))

    def of_phase(self, size: np.ndarray) -> np.ndarray:
        """Give the standard deviations of terms of the phase.

        Piston, slope and bow say how the part lies, not how rough it is.
        """
        rest = np.maximum(size, 1)
        wide = _PHASE_RAD * rest**-1.5 if self.logs is None else np.exp(self.logs[2] @ [rest**0, rest - 1])
        return np.asarray(np.where(size < ROUGH_DEGREE, _PHASE_RAD * rest**-1.5, wide))


@dataclass(frozen=True)
class Samples:
    """``points`` (B, 2) in [-1, 1], ``frames`` (K, B) in units of the noise of medium light, ``sharpness`` (K, B) that noise
    over the sample's own; ``steps_rad`` (K,) relative to frame 0 where given, and what they are worth."""

    points: np.ndarray
    frames: np.ndarray
    sharpness: np.ndarray
    steps_rad: np.ndarray | None
    steps: str

    def some(self, count: int) -> Samples:
        """Take about ``count`` of the pixels, evenly among them."""
        if count >= len(self.points):
            return self
        return self.only(np.unique(np.linspace(0, len(self.points) - 1, count).round().astype(int)))

    def only(self, which: np.ndarray) -> Samples:
        """Select the pixels ``which``."""
        return replace(
            self, points=self.points[which], frames=self.frames[:, which], sharpness=self.sharpness[:, which]
        )


@dataclass(frozen=True)
class Degrees:
    """Degrees of light and phase (0 or more), whether frames may differ by tilt and gain, and whether fringes are bent by a
    second harmonic."""

    light: int
    form: int
    fit_tilt: bool = True
    fit_gain: bool = True
    has_second_harmonic: bool = False

    def layout(self, frames: int, form: int | None = None) -> FrameLayout:
        """Lay out the parameters; ``form`` is the count of numbers of a phase that is no sum of terms."""
        count = len(terms(self.form)) if form is None else form
        return FrameLayout(
            frames, len(terms(self.light)), count, self.fit_tilt, self.fit_gain, self.has_second_harmonic
        )


@dataclass(frozen=True)
class Problem:
    """`FrameResiduals` under a loss, as `learning.levenberg_marquardt` takes it; all starts share the frames."""

    model: FrameResiduals
    loss: Loss = SQUARES

    def cost(self, parameters: Tensor) -> Tensor:
        """Compute the loss of each start, (n,)."""
        return self.model.cost(parameters, self.loss)

    def linearise(self, parameters: Tensor) -> NormalEquations:
        """Compute the normal equations of each start."""
        return NormalEquations(*self.model.normal(parameters, self.loss))

    def take(self, index: Tensor) -> Problem:
        """Take the starts ``index``: all starts share the frames, so this problem serves them."""
        return self


def frame_residuals(
    samples: Samples, degrees: Degrees, phase: PhaseForm | None = None, spreads: Spreads = Spreads()
) -> FrameResiduals:
    """Build the model of ``samples``: a Chebyshev phase, or ``phase`` at the samples' points."""
    points = torch.from_numpy(samples.points)
    form = phase or LinearPhase(torch.from_numpy(features(samples.points, degrees.form)))
    layout = degrees.layout(len(samples.frames), form.parameters)
    mean, precision = _prior(samples, degrees, layout, spreads, network=phase is not None)
    light = torch.from_numpy(features(samples.points, degrees.light))
    kept = (torch.from_numpy(part) for part in (samples.frames, samples.sharpness))
    frames, sharpness = kept
    if phase is not None:
        return FrameResiduals(layout, points, frames, light, form, mean, precision, sharpness)
    moments = Moments(points, max(degrees.light, degrees.form))
    return SeriesFrames(layout, points, frames, light, form, mean, precision, sharpness, moments)


def first_light(samples: Samples) -> tuple[float, float]:
    """Estimate mean and amplitude of the fringes, as if both were even and the phase filled the circle."""
    return first_light_of(samples.frames)


def first_light_of(frames: np.ndarray) -> tuple[float, float]:
    """Estimate mean and amplitude of the fringes of frames (K, B) in units of their noise."""
    return float(frames.mean()), float(frames.std() * np.sqrt(2))


def _prior(
    samples: Samples, degrees: Degrees, layout: FrameLayout, spreads: Spreads, *, network: bool
) -> tuple[Tensor, Tensor]:
    """Set the mean and precision of every number."""
    bright, power = first_light(samples)
    size = terms(degrees.light).sum(axis=1)
    later, at = layout.frames - 1, layout.blocks
    given = np.zeros(later) if samples.steps_rad is None else samples.steps_rad[1:]
    form = np.full(layout.form, 10.0) if network else spreads.of_phase(terms(degrees.form).sum(axis=1))
    spread = [
        spreads.of_light(0, size) * abs(bright),
        spreads.of_light(1, size) * power,
        np.full(later, _STEP_RAD[samples.steps if samples.steps_rad is not None else "unknown"]),
        np.full(at["tilt"].size, _TILT_RAD),
        np.full(at["gain"].size, _GAIN),
        np.full(at["harmonic2"].size, _SECOND),
        form,
    ]
    mean = np.zeros(layout.size)
    mean[at["background"][0]], mean[at["modulation"][0]], mean[at["step"]] = bright, power, given
    precision = np.concatenate(spread) ** -2 * spreads.temperature
    return torch.from_numpy(mean), torch.from_numpy(precision)


def moved(parameters: Tensor, before: FrameLayout, after: FrameLayout) -> Tensor:
    """Move numbers (n, P) to another layout of as many frames, both phases sums of terms: what is new is zero."""
    return before.moved(parameters, after, parameters.new_zeros(len(parameters), after.size))
