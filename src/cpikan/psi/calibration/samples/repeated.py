"""A picture that was taken or stored twice among four frames: the step that it has, and the three frames that are left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.calibration.regression import regressed
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.smooth_terms import features_of, terms_by_row
from cpikan.psi.kernels.model import Demodulation
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.frame_model import FrameModel
from cpikan.psi.model.schemes import design_matrix

_FRAMES = 4  # of which three are left; more are fitted
_SAME = (
    0.02  # of the largest mean square by which two frames differ: steps within 16 deg, noise of a tenth of the fringes
)
_APART_DEG = 45.0  # between given steps that say the frames are not the same
_DISTINCT_DEG = 20.0  # between the steps of frames that are left
_FAR_LESS = 0.3  # of the uneven light that the other step leaves
_LIT = 0.3  # of the modulation of the bright pixels
_DEGREE = 6  # of smooth light
_COMMON = 1.4  # of the noise of a difference: what that of a sum has at most where noise is independent


@dataclass(frozen=True)
class Repeated:
    """Frames ``first`` and ``second`` of wavelength ``wave`` that are one picture, the ``step_deg`` that it has (None: left
    open), whether they are ``identical``, and whether their ``noise`` is the same, as in a copy."""

    wave: int
    first: int
    second: int
    step_deg: float | None
    identical: bool
    noise: bool

    def caution(self, waves: int) -> Caution:
        """Say which frames are one picture, and with which step they are used."""
        which = f"frames {self.first + 1} and {self.second + 1}"
        if self.identical:
            how = "are identical: one was stored twice and is left out"
        elif self.noise:
            how = "are one picture with the same noise, copied: one is left out"
        else:
            how = "are one picture but for noise: a step was not taken"
        text = (
            f"{which} {how}; under {self.step_deg:g} deg light does not follow the fringes, so that this is the step of the "
            "picture, and the frames that are left determine the phase; take the lost frame again for less noise"
        )
        return Caution("frames-identical", text).of_wavelength(self.wave, waves)


def find_repeated(sample: Subsample, acquisition: Acquisition) -> tuple[Repeated, ...]:
    """Find pictures that occur twice among the four frames of a wavelength though their steps differ, one a wavelength at most.

    The picture has the step of the one or of the other frame. Three frames determine background and modulation too, and under
    the wrong step these follow the fringes: the right one is that under which they are far smoother. Steps half a turn
    apart, or those of two frames whose others are half a turn apart, only turn the surface upside down: they stay open.
    """
    given = acquisition.phase_steps_deg
    if given is None or sample.frames.shape[1] != _FRAMES:
        return ()
    found = []
    for i, samples in enumerate(sample.frames[..., sample.valid]):
        pair = _pair(samples, given[i])
        if pair is not None:
            place = sample.position[sample.valid]
            identical = np.array_equal(samples[pair[0]], samples[pair[1]])
            noise = identical or _share_noise(sample.rows.samples[i][list(pair)])
            found.append(Repeated(i, *pair, _step(samples, place, given[i], pair), identical, noise))
    return tuple(found)


def _share_noise(rows: np.ndarray) -> bool:
    """Tell whether two frames (2, n, W) have noise in common: then their sum has more of it than their difference.

    Fourth differences along the rows are noise alone but for the densest fringes, which pass for noise in common.
    """
    first, second = np.diff(rows.astype(np.float64), 4, axis=-1)
    total, apart = (float(np.nanmedian(np.abs(one))) for one in (first + second, first - second))
    return total > _COMMON * apart


def _pair(samples: np.ndarray, given: tuple[float, ...]) -> tuple[int, int] | None:
    """Find the two frames of (K, P) that differ least, if next to nothing, though their steps say otherwise."""
    values = samples[:, np.isfinite(samples).all(axis=0)].astype(np.float64)
    pairs = [(j, k) for k in range(len(given)) for j in range(k)]
    apart = {(j, k): float(np.mean((values[j] - values[k]) ** 2)) for j, k in pairs} if values.size else {}
    if not apart:
        return None
    nearest = min(pairs, key=lambda pair: apart[pair])
    if apart[nearest] > _SAME * max(apart.values()) or _between_deg(given[nearest[0]], given[nearest[1]]) < _APART_DEG:
        return None
    return nearest


def _between_deg(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)


def _step(samples: np.ndarray, position: np.ndarray, given: tuple[float, ...], pair: tuple[int, int]) -> float | None:
    """Choose between the two steps that the picture may have; None where light does not tell them apart."""
    others = [step for k, step in enumerate(given) if k not in pair]
    picture = (samples[pair[0]].astype(np.float64) + samples[pair[1]]) / 2
    frames = np.stack([picture, *(samples[k] for k in range(len(given)) if k not in pair)])
    uneven = {}
    for k in pair:
        steps = (given[k], *others)
        distinct = min(_between_deg(a, b) for i, a in enumerate(steps) for b in steps[:i])
        if distinct > _DISTINCT_DEG:
            uneven[given[k]] = _uneven_light(frames, position, steps)
    best = min(uneven, key=lambda step: uneven[step], default=None)
    if best is None or len(uneven) < len(pair) or uneven[best] > _FAR_LESS * max(uneven.values()):
        return None
    return best


def _uneven_light(frames: np.ndarray, position: np.ndarray, steps_deg: tuple[float, ...]) -> float:
    """Compute the mean square that background and modulation of three frames (3, P) have beside smooth fields."""
    usable = np.isfinite(frames).all(axis=0)
    background, u, v = np.linalg.inv(design_matrix(steps_deg)) @ frames[:, usable]
    size = np.hypot(u, v)
    lit = size > _LIT * np.quantile(size, 0.9)
    points = np.stack([2 * (c - c.min()) / max(float(np.ptp(c)), 1e-12) - 1 for c in position[usable][lit].T], axis=1)
    smooth = features_of(points, terms_by_row(_DEGREE)).T
    light = np.stack([background[lit], size[lit]])
    return float(np.mean((light - regressed(smooth, light) @ smooth) ** 2))


def with_their_steps(acquisition: Acquisition, repeated: tuple[Repeated, ...]) -> Acquisition:
    """Give both frames of every picture the step that it has."""
    assert acquisition.phase_steps_deg is not None
    steps = [list(row) for row in acquisition.phase_steps_deg]
    for one in repeated:
        assert one.step_deg is not None
        steps[one.wave][one.first] = steps[one.wave][one.second] = one.step_deg
    return replace(acquisition, phase_steps_deg=tuple(tuple(row) for row in steps))


@dataclass(frozen=True)
class Kept:
    """The frames of every wavelength that a calibration is made from: ``index`` (L, K - 1), of K."""

    index: np.ndarray

    @classmethod
    def without(cls, repeated: tuple[Repeated, ...], waves: int) -> Kept:
        """Leave out the second of two frames with the same noise, and where there are none the last: all have as many."""
        out = np.full(waves, _FRAMES - 1)
        for one in repeated:
            out[one.wave] = one.second
        return cls(np.array([[k for k in range(_FRAMES) if k != left] for left in out]))

    def sample(self, sample: Subsample) -> Subsample:
        """Take the kept frames of a subsample."""
        rows = np.take_along_axis(sample.rows.samples, self.index[:, :, None, None], axis=1)
        frames = np.take_along_axis(sample.frames, self.index[:, :, None], axis=1)
        return replace(sample, frames=frames, rows=replace(sample.rows, samples=rows))

    def acquisition(self, acquisition: Acquisition) -> Acquisition:
        """Take the steps of the kept frames."""
        assert acquisition.phase_steps_deg is not None
        steps = [tuple(row[k] for k in kept) for row, kept in zip(acquisition.phase_steps_deg, self.index, strict=True)]
        return replace(acquisition, phase_steps_deg=tuple(steps))

    def widened(self, found: Demodulation) -> Demodulation:
        """Make the demodulation of the kept frames one of all frames: those that are left out have no weight."""
        names = ("cosine", "sine", "mean", "parity")
        wide: dict[str, Any] = {name: np.zeros((found.wavelengths, _FRAMES)) for name in names}
        for name, array in wide.items():
            np.put_along_axis(array, self.index, getattr(found, name), axis=1)
        models = found.models and tuple(_widened(one, kept) for one, kept in zip(found.models, self.index, strict=True))
        return replace(found, **wide, models=models)


def _widened(model: FrameModel, kept: np.ndarray) -> FrameModel:
    """Put a frame without light among those of a model: it has no weight."""

    def wide(values: np.ndarray) -> np.ndarray:
        array = np.zeros((_FRAMES, *values.shape[1:]))
        array[kept] = values
        return array

    names = ("steps_rad", "tilt_rad_px", "defocus_rad_px2", "gain", "offset_dn")
    fields: dict[str, Any] = {name: wide(getattr(model, name)) for name in names}
    return replace(model, **fields, contrast=None if model.contrast is None else wide(model.contrast))


def check_decided(repeated: tuple[Repeated, ...], labels: tuple[str, ...], *, plain: bool) -> None:
    """Refuse identical frames whose step is left open, and schemes that need all frames (``plain`` is False)."""
    for one in repeated:
        if not one.identical or (one.step_deg is not None and plain):
            continue
        which = " and ".join(labels[one.wave * _FRAMES + k] for k in (one.first, one.second))
        why = (
            "which of the two the picture has is left open by the three frames that are left"
            if plain
            else "the scheme needs all four frames"
        )
        raise InputError(
            f"frames {which} are identical though their phase steps differ: one was stored twice, and {why}; leave out the "
            "frame that is wrong, with its step, or take the frames again"
        )
