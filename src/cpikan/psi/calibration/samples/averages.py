"""What averages over neighbouring pixels are worth: noise that neighbours share does not average out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cpikan.order_statistics import median, quantile
from cpikan.psi.calibration.regression import regressed
from cpikan.psi.kernels import reference
from cpikan.psi.kernels.model import Demodulation
from cpikan.psi.model.caution import Caution

SIDES_PX = (2, 4, 8, 16)
_FEWEST = 24  # squares of a side, over all wavelengths: fewer say little
_USUAL, _STRUCK = 0.9, 4.0  # a quantile of what is left, and times it: six standard deviations and more
_FEWEST_PIXELS = 500
_SILENT = 1e-6  # of the variance that the model expects: frames without noise, but for rounding
_MULTIPLES = 4  # of the fringe, from one on
_TOLD = 1.5  # times sigma / k, of a square of eight pixels
_ADRIFT_RAD = 0.3  # phase noise, from which rows that share it differ by half a turn once in a map of hundreds


def average_factors(
    frames: np.ndarray, model: Demodulation, position: tuple[np.ndarray, np.ndarray]
) -> dict[int, float] | None:
    """Measure how much larger than sigma / k the standard deviation of the mean of k x k pixels is.

    ``frames`` (L, K, rows, columns) lie at ``position``, rows and columns of the image. What they hold beside light is noise,
    pixel by pixel; its means over squares scatter more where neighbours share it. None where frames leave nothing beside
    (three of them), or too few squares are whole.
    """
    if not model.parity.any():
        return None
    noise, phasor = reference.noise_image(frames, model, position)
    size = np.abs(phasor)
    lit = np.stack([one > median(one) / 2 for one in size])
    usable = np.isfinite(noise) & lit & ~model.clips(frames).any(axis=1)
    if min(one.sum() for one in usable) < _FEWEST_PIXELS:
        return None
    for one, inside in zip(np.abs(noise), usable, strict=True):
        inside &= one <= _STRUCK * quantile(one[inside], _USUAL)  # single struck samples are no shared noise
    noise = np.stack([_without_fringes(*parts) for parts in zip(noise, phasor, usable, strict=True)])
    power = np.nanmean(noise**2, axis=(1, 2), keepdims=True)
    if not (power > _SILENT).all():
        return None
    noise /= np.sqrt(power)
    found = {}
    for side in SIDES_PX:
        squares = _means(noise, side)
        squares = squares[np.isfinite(squares)]
        if squares.size < _FEWEST:
            break
        found[side] = float(side * np.sqrt(np.mean(squares**2)))
    return found or None


def _without_fringes(noise: np.ndarray, phasor: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Take off what follows the fringes (a bent camera, steps that are off): it is no noise. NaN where not usable."""
    unit = phasor[usable]
    unit /= np.abs(unit)
    multiples = [unit]
    for _ in range(1, _MULTIPLES):
        multiples.append(multiples[-1] * unit)
    waves = np.stack([np.ones(len(unit)), *(part for wave in multiples for part in (wave.real, wave.imag))])
    found = np.full(noise.shape, np.nan)
    found[usable] = noise[usable] - (regressed(waves, noise[None, usable]) @ waves)[0]
    return found


def _means(values: np.ndarray, side: int) -> np.ndarray:
    """Average over whole squares: (L, squares); NaN where a pixel of one is missing."""
    count, rows, columns = values.shape
    whole = values[:, : rows // side * side, : columns // side * side]
    return np.asarray(
        whole.reshape(count, rows // side, side, columns // side, side).mean(axis=(2, 4)).reshape(count, -1)
    )


def shared_noise(factors: dict[int, float] | None, sigma_rad: Sequence[float]) -> tuple[Caution, ...]:
    """Say that neighbours share noise, where it matters for averages, and where it leaves orders of one wavelength in doubt.

    ``sigma_rad`` is the phase noise by wavelength.
    """
    if factors is None or factors.get(8, 1.0) < _TOLD:
        return ()
    text = (
        f"neighbouring pixels share noise: the mean of 8 x 8 of them is {factors[8]:.2g} times as uncertain as sigma / 8 says "
        "(sigma_average_factors has other sizes)"
    )
    shared = (Caution("noise-shared", text),)
    if len(sigma_rad) > 1 or sigma_rad[0] < _ADRIFT_RAD:  # several wavelengths have orders pixel by pixel
        return shared
    text = (
        f"neighbouring pixels share phase noise of {sigma_rad[0]:.2g} rad, as rows that shake together do: orders between them "
        "are in doubt, and parts of the map may lie whole turns off; damp vibrations, take frames faster, or take more of them"
    )
    return (*shared, Caution("rows-adrift", text))
