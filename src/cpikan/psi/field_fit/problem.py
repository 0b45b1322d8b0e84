"""The least-squares problem of a subsample: terms, priors, and what Levenberg-Marquardt asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander
from torch import Tensor

from cpikan.learning.normal_equations import NormalEquations
from cpikan.learning.robust import SQUARES, Loss
from cpikan.physics.frame_residuals import FrameLayout, FrameResiduals, LinearPhase, PhaseForm

# standard deviations of Gaussian priors: they only bound what the frames leave open
_LIGHT_SHARE = 0.5  # of a first-degree mode of A and B, as a share of its mean; degree d has a share / d^1.5
_LIGHT_MEAN = 3.0
_TILT_RAD = 1.5  # at the edge of the field
_GAIN = 0.05
_SECOND = 0.2  # of B
_PHASE_RAD = 60.0  # of a first-degree mode of the phase
_STEP_RAD = {"trusted": 1e-4, "nominal": np.radians(30.0), "unknown": 20.0}


def terms(degree: int) -> np.ndarray:
    """Powers (i, j) of T_i(y) T_j(x) with i + j <= ``degree``, by rising i + j, (M, 2): a degree's terms are those of a
    lower one and more."""
    return np.array([(i, total - i) for total in range(degree + 1) for i in range(total + 1)])


def features(points: np.ndarray, degree: int) -> np.ndarray:
    """T_i(y) T_j(x) at ``points`` (B, 2) in [-1, 1], (B, M)."""
    y, x = (chebvander(axis, degree) for axis in points.T)
    rows = terms(degree)
    return y[:, rows[:, 0]] * x[:, rows[:, 1]]


@dataclass(frozen=True)
class Samples:
    """``points`` (B, 2) in [-1, 1], ``frames`` (K, B) in units of their noise; ``steps_rad`` (K,) relative to frame 0 where
    given, and what they are worth."""

    points: np.ndarray
    frames: np.ndarray
    steps_rad: np.ndarray | None
    steps: str

    def some(self, count: int) -> Samples:
        """About ``count`` of the pixels, evenly among them."""
        if count >= len(self.points):
            return self
        which = np.unique(np.linspace(0, len(self.points) - 1, count).round().astype(int))
        return replace(self, points=self.points[which], frames=self.frames[:, which])


@dataclass(frozen=True)
class Degrees:
    """Of light and of the phase (0 or more), whether frames may differ by tilt and gain, and whether fringes are bent by a
    second harmonic."""

    light: int
    form: int
    tilted: bool = True
    gained: bool = True
    bent: bool = False

    def layout(self, frames: int, form: int | None = None) -> FrameLayout:
        """The parameters' places; ``form`` numbers of a phase that is no sum of terms."""
        count = len(terms(self.form)) if form is None else form
        return FrameLayout(frames, len(terms(self.light)), count, self.tilted, self.gained, self.bent)


@dataclass(frozen=True)
class Problem:
    """`FrameResiduals` under a loss, as `learning.levenberg_marquardt` takes it; all starts share the frames."""

    model: FrameResiduals
    loss: Loss = SQUARES

    def cost(self, parameters: Tensor) -> Tensor:
        """The loss of each start, (n,)."""
        return self.model.cost(parameters, self.loss)

    def linearise(self, parameters: Tensor) -> NormalEquations:
        """The normal equations of each start."""
        return NormalEquations(*self.model.normal(parameters, self.loss))

    def take(self, index: Tensor) -> Problem:
        """The starts ``index``: the frames are theirs too."""
        return self


def frame_residuals(samples: Samples, degrees: Degrees, phase: PhaseForm | None = None) -> FrameResiduals:
    """The model of ``samples``: a Chebyshev phase, or ``phase`` at the samples' points."""
    points = torch.from_numpy(samples.points)
    form = phase or LinearPhase(torch.from_numpy(features(samples.points, degrees.form)))
    layout = degrees.layout(len(samples.frames), form.parameters)
    mean, precision = _prior(samples, degrees, layout, network=phase is not None)
    light = torch.from_numpy(features(samples.points, degrees.light))
    return FrameResiduals(layout, points, torch.from_numpy(samples.frames), light, form, mean, precision)


def first_light(samples: Samples) -> tuple[float, float]:
    """Mean and amplitude of the fringes, as if both were even and the phase filled the circle."""
    return float(samples.frames.mean()), float(samples.frames.std() * np.sqrt(2))


def _prior(samples: Samples, degrees: Degrees, layout: FrameLayout, *, network: bool) -> tuple[Tensor, Tensor]:
    """Mean and precision of every number."""
    bright, power = first_light(samples)
    size = np.maximum(terms(degrees.light).sum(axis=1), 1)
    light = _LIGHT_SHARE * size**-1.5
    light[0] = _LIGHT_MEAN
    later = layout.frames - 1
    given = np.zeros(later) if samples.steps_rad is None else samples.steps_rad[1:]
    if network:
        form = np.full(layout.form, 10.0)
    else:
        form = _PHASE_RAD * np.maximum(terms(degrees.form).sum(axis=1), 1) ** -1.5
    spread = [
        light * abs(bright),
        light * power,
        np.full(later, _STEP_RAD[samples.steps if samples.steps_rad is not None else "unknown"]),
        np.full(layout.sizes[3], _TILT_RAD),
        np.full(layout.sizes[4], _GAIN),
        np.full(layout.sizes[5], _SECOND),
        form,
    ]
    mean = np.zeros(layout.size)
    mean[0], mean[layout.light] = bright, power
    mean[2 * layout.light : 2 * layout.light + later] = given
    return torch.from_numpy(mean), torch.from_numpy(np.concatenate(spread) ** -2)


def moved(parameters: Tensor, before: FrameLayout, after: FrameLayout) -> Tensor:
    """Numbers (n, P) in another layout of as many frames, both phases sums of terms: what is new is zero."""
    rows = []
    for part, size in zip(parameters.split(before.sizes, dim=-1), after.sizes, strict=True):
        row = part.new_zeros(len(part), size)
        count = min(size, part.shape[-1])
        row[:, :count] = part[:, :count]
        rows.append(row)
    return torch.cat(rows, dim=-1)
