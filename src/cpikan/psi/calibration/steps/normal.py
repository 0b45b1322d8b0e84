"""Normal equations of frames and pixels together, the pixels eliminated by Schur's complement.

::

    | F   C' | frames          F  ``_direct``: frames, harmonics and smooth fields while the pixels are held
    | C   D  | pixels          D  a 3 x 3 block per pixel (background, modulation, phase), L L' = `PixelFactor`
                               ``coupling`` = L^-1 C,  ``matrix`` = F - coupling' coupling

A smooth field is one light of P pixels times one shape, for all its terms: its columns of the coupling are never built, and
its products are those of the shapes with sums over the three unknowns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cpikan.psi.calibration.steps.model import Evaluation, Layout, Samples, State


@dataclass(frozen=True)
class Spread:
    """Standard deviations, in units of the modulation: of a sample, and of background and modulation about smooth fields."""

    noise: float
    background: float
    modulation: float

    @property
    def light(self) -> tuple[float, float]:
        """Give the scatter of background and modulation."""
        return self.background, self.modulation

    def squares(self) -> np.ndarray:
        return np.array([self.noise, self.background, self.modulation]) ** 2


@dataclass(frozen=True)
class PixelFactor:
    """Cholesky factors L of the 3 x 3 normal matrices of P pixels (background, modulation, phase): ``lower`` (3, 3, P)."""

    lower: np.ndarray

    @classmethod
    def of(cls, own: np.ndarray, spread: Spread) -> PixelFactor:
        """Factor the normal matrix of ``own`` derivatives (3, K, P) over the noise, both smooth fields as priors."""
        lower = np.zeros((3, 3, own.shape[-1]))
        prior = (spread.background**-2, spread.modulation**-2, 0.0)
        # shares of an entry, and of one, that are left at least: the phase of a pixel without modulation is anything
        least = ((0.0, 0.0), (1e-12, 0.0), (1e-6, 1e-9))
        for i in range(3):
            for j in range(i):
                entry = np.einsum("kp,kp->p", own[i], own[j])
                for m in range(j):
                    entry = entry - lower[i, m] * lower[j, m]
                lower[i, j] = entry / lower[j, j]
            entry = np.einsum("kp,kp->p", own[i], own[i]) + prior[i]
            bound = least[i][0] * entry + least[i][1]
            for m in range(i):
                entry = entry - lower[i, m] ** 2
            lower[i, i] = np.sqrt(np.maximum(entry, bound))
        return cls(lower)

    def forward(self, right: np.ndarray) -> np.ndarray:
        """Multiply right sides (3, ..., P) by L^-1."""
        found = np.empty_like(right)
        for i in range(3):
            rest = right[i]
            for j in range(i):
                rest = rest - self.lower[i, j] * found[j]
            found[i] = rest / self.lower[i, i]
        return found

    def backward(self, right: np.ndarray) -> np.ndarray:
        """Multiply right sides (3, P) by L'^-1."""
        found = np.empty_like(right)
        for i in (2, 1, 0):
            rest = right[i]
            for j in range(i + 1, 3):
                rest = rest - self.lower[j, i] * found[j]
            found[i] = rest / self.lower[i, i]
        return found

    @cached_property
    def inverse(self) -> np.ndarray:
        """Compute the columns of L^-1 for background and modulation (2, 3, P)."""
        (l00, _, _), (l10, l11, _), (l20, l21, l22) = self.lower
        background = 1 / l00, -l10 / (l00 * l11), (l10 * l21 - l20 * l11) / (l00 * l11 * l22)
        return np.array([background, (np.zeros_like(l11), 1 / l11, -l21 / (l11 * l22))])


@dataclass(frozen=True)
class Normal:
    """``matrix`` (n, n) and ``right`` (n,) for the frames after elimination of the pixels.

    ``coupling`` (own, 3, P) of frames and harmonics, ``light`` (2, 3, P), which times a term of ``fields`` (M, P) is the
    coupling of that term of background or modulation, and ``pixel_right`` (3, P) are L^-1 times the mixed block and the right
    side of the pixels, L their ``factor``. ``root`` (P,) is the square root of the weights; ``slopes`` (K - 1, per frame, P)
    and ``scaled_rest`` (K, P) the frames' derivatives and what is left, over the noise.
    """

    matrix: np.ndarray
    right: np.ndarray
    coupling: np.ndarray
    light: np.ndarray
    fields: np.ndarray
    pixel_right: np.ndarray
    factor: PixelFactor
    root: np.ndarray
    slopes: np.ndarray
    scaled_rest: np.ndarray

    def pixel_step(self, step: np.ndarray) -> np.ndarray:
        """Solve for the change of the pixels (3, P) that goes with a step of the frames."""
        weight = np.maximum(self.root, 1e-12)
        own, terms = len(self.coupling), len(self.fields)
        pulled = (step[:own] @ self.coupling.reshape(own, -1)).reshape(self.pixel_right.shape)
        for light, one in zip(self.light, step[own:].reshape(2, terms), strict=True):
            pulled += light * (one @ self.fields)
        return self.factor.backward(self.pixel_right - pulled / weight)

    def shares(self) -> np.ndarray:
        """Compute the posterior variances (2, P) of background and modulation of a pixel, frames held."""
        background, modulation = self.factor.inverse**2
        own = self.factor.lower[1, 1] ** -2
        return np.stack([background[0] + background[1] + background[2], own + modulation[2]])


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
    factor = PixelFactor.of(own, spread)
    pulls = np.einsum("akp,kp->ap", own, rest)
    pulls[0] += found.off_background / spread.background**2
    pulls[1] += found.off_modulation / spread.modulation**2
    pixel_right, along = factor.forward(pulls), factor.forward(own)
    slopes = _frame_slopes(samples, layout, own[2, 1:], light[1:] / spread.noise, spread.noise)
    if "contrast" in layout.effects:
        slopes[:, -1] = own[1, 1:] * state.pixel[1] / at.contrast[1:, None]
    higher = found.higher * (gain * state.pixel[1])
    root = np.sqrt(weight)

    coupling = _coupling(layout, along * root, slopes, higher)
    flat = coupling.reshape(layout.own, -1)
    scatter = np.array(spread.light)
    light = factor.inverse * (-root / scatter[:, None, None] ** 2)

    weighted, scaled_right = rest * weight, pixel_right * root
    right = np.empty(layout.size)
    frames_right = np.einsum("kjp,kp->kj", slopes, weighted[1:]).ravel()
    right[: layout.own] = np.concatenate([frames_right, np.einsum("hkp,kp->h", higher, weighted)])
    right[: layout.own] -= flat @ scaled_right.ravel()
    for place, off, one, width in zip(
        layout.light, (found.off_background, found.off_modulation), light, scatter, strict=True
    ):
        right[place] = -samples.fields @ (weight * off / width**2 + np.einsum("ap,ap->p", one, scaled_right))
    matrix = _direct(layout, slopes, higher, weight)
    matrix[: layout.own, : layout.own] -= flat @ flat.T
    _add_light(matrix, layout, samples.fields, coupling, light, weight / scatter[:, None] ** 2)
    return Normal(matrix, right, coupling, light, samples.fields, pixel_right, factor, root, slopes, rest)


def _frame_slopes(samples: Samples, layout: Layout, slope: np.ndarray, light: np.ndarray, noise: float) -> np.ndarray:
    """Differentiate frames 1 .. K-1 by their own parameters but contrast, over the noise: (K - 1, per frame, P)."""
    slopes = np.empty((len(slope), layout.per_frame, samples.pixels))
    slopes[:, : layout.waves] = slope[:, None] * samples.wave_terms(layout)
    if "gain" in layout.effects:
        slopes[:, layout.waves] = light
    if "offset" in layout.effects:
        slopes[:, layout.waves + ("gain" in layout.effects)] = 1 / noise
    return slopes


def _coupling(layout: Layout, along: np.ndarray, slopes: np.ndarray, higher: np.ndarray) -> np.ndarray:
    """Multiply the samples ``along`` (3, K, P) the pixels' unknowns by the derivatives of frames and harmonics: (own, 3, P)."""
    pixels = along.shape[-1]
    coupling = np.empty((layout.own, 3, pixels))
    frames = coupling[: layout.of_frames].reshape(layout.frames - 1, layout.per_frame, 3, pixels)
    np.multiply(along[:, 1:].swapaxes(0, 1)[:, None], slopes[:, :, None], out=frames)
    coupling[layout.of_frames :] = np.einsum("akp,hkp->hap", along, higher)
    return coupling


def _direct(layout: Layout, slopes: np.ndarray, higher: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Build the normal matrix (n, n) of frames and harmonics while the pixels are held, that of the smooth fields nought."""
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
    return matrix


def _add_light(
    matrix: np.ndarray,
    layout: Layout,
    fields: np.ndarray,
    coupling: np.ndarray,
    light: np.ndarray,
    precision: np.ndarray,
) -> None:
    """Fill in the blocks of the smooth fields, seen with ``precision`` (2, P) directly, with the pixels taken out."""
    own, terms = layout.own, layout.terms
    pairs = ((0, 0), (0, 1), (1, 1))
    left = np.empty((2 * own + 3 * terms, fields.shape[1]))  # all that is multiplied by the fields, at once
    for i in range(2):
        np.einsum("oap,ap->op", coupling, light[i], out=left[i * own : (i + 1) * own])
    for m, (i, j) in enumerate(pairs):
        seen = np.einsum("ap,ap->p", light[i], light[j]) - (precision[i] if i == j else 0.0)
        np.multiply(fields, seen, out=left[2 * own + m * terms : 2 * own + (m + 1) * terms])
    found = -(left @ fields.T)
    for i, place in enumerate(layout.light):
        mixed = found[i * own : (i + 1) * own]
        matrix[:own, place], matrix[place, :own] = mixed, mixed.T
    for (i, j), block in zip(pairs, found[2 * own :].reshape(3, terms, terms), strict=True):
        matrix[layout.light[i], layout.light[j]], matrix[layout.light[j], layout.light[i]] = block, block.T
