"""Normal equations of frames and pixels together, the pixels eliminated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.calibration.steps.layout import Layout
from cpikan.psi.calibration.steps.model import Evaluation, Samples, State


@dataclass(frozen=True)
class Spread:
    """Standard deviations, in units of the modulation: of a sample, and of background and modulation about smooth fields."""

    noise: float
    background: float
    modulation: float

    def squares(self) -> np.ndarray:
        return np.array([self.noise, self.background, self.modulation]) ** 2


@dataclass(frozen=True)
class Normal:
    """``matrix`` (n, n) and ``right`` (n,) for the frames after elimination of the pixels.

    ``coupling`` (3, n, P) and ``pixel_right`` (3, P) are L^-1 times the mixed block and the right side of the pixels, where
    L L' is each pixel's own block; ``lower`` its six elements. ``root`` (P,) is the square root of the weights; ``slopes``
    (K - 1, per frame, P) and ``scaled_rest`` (K, P) the frames' derivatives and what is left, over the noise.
    """

    matrix: np.ndarray
    right: np.ndarray
    coupling: np.ndarray
    pixel_right: np.ndarray
    lower: tuple[np.ndarray, ...]
    root: np.ndarray
    slopes: np.ndarray
    scaled_rest: np.ndarray

    def pixel_step(self, step: np.ndarray) -> np.ndarray:
        """How the pixels (3, P) follow a step of the frames."""
        weight = np.maximum(self.root, 1e-12)
        t0, t1, t2 = self.pixel_right - np.tensordot(step, self.coupling, (0, 1)) / weight
        l00, l10, l11, l20, l21, l22 = self.lower
        third = t2 / l22
        second = (t1 - l21 * third) / l11
        return np.stack([(t0 - l10 * second - l20 * third) / l00, second, third])

    def shares(self) -> np.ndarray:
        """Posterior variances (2, P) of background and modulation of a pixel, frames held."""
        l00, l10, l11, l20, l21, l22 = self.lower
        inverse = 1 / l00, -l10 / (l00 * l11), (l10 * l21 - l20 * l11) / (l00 * l11 * l22)
        return np.stack([inverse[0] ** 2 + inverse[1] ** 2 + inverse[2] ** 2, l11**-2 + (l21 / (l11 * l22)) ** 2])


def assemble(
    samples: Samples, layout: Layout, state: State, found: Evaluation, spread: Spread, weight: np.ndarray
) -> Normal:
    """Linearise at ``state``; ``weight`` (P,) are robust weights of the pixels.

    Each pixel has K samples and two more observations: its background and modulation are those of smooth fields to within
    ``spread``. Schur's complement takes the three unknowns of every pixel out exactly.
    """
    at = layout.unpack(state.theta)
    gain = at.gain[:, None] / spread.noise
    light = state.pixel[0] + state.pixel[1] * found.shape
    own = np.stack([np.broadcast_to(gain, light.shape), gain * found.shape, gain * state.pixel[1] * found.slope])
    rest = found.rest / spread.noise
    lower = _cholesky(own, spread)
    l00, l10, l11, l20, l21, l22 = lower
    along = np.empty_like(own)
    along[0] = own[0] / l00
    along[1] = (own[1] - l10 * along[0]) / l11
    along[2] = (own[2] - l20 * along[0] - l21 * along[1]) / l22
    pulls = np.einsum("akp,kp->ap", own, rest)
    pulls[0] += found.off_background / spread.background**2
    pulls[1] += found.off_modulation / spread.modulation**2
    first = pulls[0] / l00
    second = (pulls[1] - l10 * first) / l11
    pixel_right = np.stack([first, second, (pulls[2] - l20 * first - l21 * second) / l22])
    slopes = _frame_slopes(samples, layout, own[2, 1:], light[1:] / spread.noise, spread.noise)
    higher = found.higher * (gain * state.pixel[1])
    root = np.sqrt(weight)

    coupling = np.empty((3, layout.size, samples.pixels))
    frames = coupling[:, : layout.of_frames].reshape(3, samples.frames - 1, layout.per_frame, samples.pixels)
    np.multiply((along[:, 1:] * root)[:, :, None], slopes, out=frames)
    coupling[:, layout.of_frames : layout.own] = np.einsum("akp,hkp->ahp", along * root, higher)
    inverse0 = np.stack([1 / l00, -l10 / (l00 * l11), (l10 * l21 - l20 * l11) / (l00 * l11 * l22)])
    inverse1 = np.stack([np.zeros_like(l11), 1 / l11, -l21 / (l11 * l22)])
    split = layout.own + layout.terms
    coupling[:, layout.own : split] = -(inverse0 * root / spread.background**2)[:, None] * samples.fields
    coupling[:, split:] = -(inverse1 * root / spread.modulation**2)[:, None] * samples.fields

    matrix = _direct(samples, layout, slopes, higher, spread, weight)
    right = _direct_right(samples, layout, slopes, higher, rest * weight, found, spread, weight)
    for q in range(3):
        matrix -= coupling[q] @ coupling[q].T
        right -= coupling[q] @ (pixel_right[q] * root)
    return Normal(matrix, right, coupling, pixel_right, lower, root, slopes, rest)


def _cholesky(own: np.ndarray, spread: Spread) -> tuple[np.ndarray, ...]:
    n00 = np.einsum("kp,kp->p", own[0], own[0]) + spread.background**-2
    n10 = np.einsum("kp,kp->p", own[1], own[0])
    n11 = np.einsum("kp,kp->p", own[1], own[1]) + spread.modulation**-2
    n20 = np.einsum("kp,kp->p", own[2], own[0])
    n21 = np.einsum("kp,kp->p", own[2], own[1])
    n22 = np.einsum("kp,kp->p", own[2], own[2])
    l00 = np.sqrt(n00)
    l10, l20 = n10 / l00, n20 / l00
    l11 = np.sqrt(np.maximum(n11 - l10**2, 1e-12 * n11))
    l21 = (n21 - l20 * l10) / l11
    # a floor: the phase of a pixel without modulation is anything
    l22 = np.sqrt(np.maximum(n22 - l20**2 - l21**2, 1e-6 * n22 + 1e-9))
    return l00, l10, l11, l20, l21, l22


def _frame_slopes(samples: Samples, layout: Layout, slope: np.ndarray, light: np.ndarray, noise: float) -> np.ndarray:
    """Derivatives of frames 1 .. K-1 to their own parameters (K - 1, per frame, P), over the noise."""
    slopes = np.empty((len(slope), layout.per_frame, samples.pixels))
    slopes[:, : layout.waves] = slope[:, None] * samples.wave_terms(layout)
    if "gain" in layout.effects:
        slopes[:, layout.waves] = light
    if "offset" in layout.effects:
        slopes[:, -1] = 1 / noise
    return slopes


def _direct(
    samples: Samples, layout: Layout, slopes: np.ndarray, higher: np.ndarray, spread: Spread, weight: np.ndarray
) -> np.ndarray:
    matrix = np.zeros((layout.size, layout.size))
    weighted = slopes * weight
    own, each = layout.of_frames, layout.per_frame
    for k, block in enumerate(weighted @ slopes.transpose(0, 2, 1)):
        matrix[k * each : (k + 1) * each, k * each : (k + 1) * each] = block
    for i in range(len(higher)):
        mixed = np.einsum("kjp,kp->kj", weighted, higher[i, 1:]).ravel()
        matrix[own + i, :own] = matrix[:own, own + i] = mixed
        for j in range(len(higher)):
            matrix[own + i, own + j] = np.vdot(higher[i] * weight, higher[j])
    smooth = (samples.fields * weight) @ samples.fields.T
    split = layout.own + layout.terms
    matrix[layout.own : split, layout.own : split] = smooth / spread.background**2
    matrix[split:, split:] = smooth / spread.modulation**2
    return matrix


def _direct_right(
    samples: Samples,
    layout: Layout,
    slopes: np.ndarray,
    higher: np.ndarray,
    rest: np.ndarray,
    found: Evaluation,
    spread: Spread,
    weight: np.ndarray,
) -> np.ndarray:
    frames = np.einsum("kjp,kp->kj", slopes, rest[1:]).ravel()
    harmonics = np.einsum("hkp,kp->h", higher, rest)
    background = -samples.fields @ (weight * found.off_background) / spread.background**2
    modulation = -samples.fields @ (weight * found.off_modulation) / spread.modulation**2
    return np.concatenate([frames, harmonics, background, modulation])
