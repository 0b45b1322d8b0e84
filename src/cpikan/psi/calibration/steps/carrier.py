"""Steps and tilts from the fringes' own carrier: where image rows hold many fringes, their spectra show the steps at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.calibration.regression import weighted_plane

_LOWEST = 8  # fringes across a row: below that background and modulation are in the way
_SEGMENTS = 12  # of a row, each of which gives one step
_COHERENCE = 0.9  # of the segments' steps about a plane: fringes that turn back somewhere do not reach it
_TRIALS = 65  # slopes tried along each axis, up to one turn from neighbour to neighbour


@dataclass(frozen=True)
class WholeRows:
    """``samples`` (K, n, W) of image rows ``lines`` (n,), from column ``left`` on."""

    samples: np.ndarray
    lines: np.ndarray
    left: int = 0


@dataclass(frozen=True)
class Carrier:
    """Steps (K,) in rad at the ``pivot`` (y, x) and tilts (K, 2) in rad per pixel, relative to frame 0."""

    steps_rad: np.ndarray
    tilt_rad_px: np.ndarray
    pivot: tuple[float, float]

    def steps_at(self, pivot: tuple[float, float]) -> np.ndarray:
        return self.steps_rad + self.tilt_rad_px @ np.subtract(pivot, self.pivot)


def carrier_of(rows: WholeRows) -> Carrier | None:
    """Find steps and tilts of rows with a carrier; None where none stands out or the sidebands agree on no plane.

    The sideband of a row is B exp(i (phi + delta_k)) up to what the frames share, so that its product with that of frame 0
    has the angle of the step (Takeda, Ina, Kobayashi, J. Opt. Soc. Am. 72, 156 (1982)). The sign is that of a phase that
    rises along the rows.
    """
    samples = np.nan_to_num(np.asarray(rows.samples, np.float64))
    frames, count, width = samples.shape
    if count < 2 or width < 8 * _LOWEST * _SEGMENTS // 2:
        return None
    spectrum = np.fft.rfft((samples - samples.mean(axis=-1, keepdims=True)) * np.hanning(width), axis=-1)
    power = (np.abs(spectrum) ** 2).sum(axis=(0, 1))
    power[:_LOWEST] = 0
    peak = int(power.argmax())
    band = slice(max(_LOWEST, peak // 2), min(peak + max(2, peak // 2) + 1, spectrum.shape[-1]))
    kept = np.zeros((frames, count, width), complex)
    kept[..., band] = spectrum[..., band]
    sideband = np.fft.ifft(kept, axis=-1)
    piece = width // _SEGMENTS
    products = (sideband * sideband[0].conj())[..., : piece * _SEGMENTS]
    products = products.reshape(frames, count, _SEGMENTS, piece).sum(axis=-1)
    y = np.repeat(np.asarray(rows.lines, float), _SEGMENTS)
    x = np.tile(rows.left + (np.arange(_SEGMENTS) + 0.5) * piece, count)
    pivot = (float(y.mean()), float(x.mean()))
    planes = [_plane(part.ravel(), y - pivot[0], x - pivot[1]) for part in products]
    if any(plane is None for plane in planes):
        return None
    found = np.array(planes, float)
    return Carrier(found[:, 0], found[:, 1:], pivot)


def _plane(products: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[float, float, float] | None:
    """Fit the angle at the origin and its slopes along y and x to complex numbers whose angles lie about a plane."""
    size = np.abs(products).sum()
    if size <= 0:
        return None
    steps = [np.diff(np.unique(axis)).min() for axis in (y, x)]
    along_y, along_x = (np.linspace(-np.pi, np.pi, _TRIALS) / step for step in steps)
    total = np.exp(-1j * np.outer(along_y, y)) @ (products[:, None] * np.exp(-1j * np.outer(x, along_x)))
    best = np.unravel_index(np.abs(total).argmax(), total.shape)
    if np.abs(total[best]) < _COHERENCE * size:
        return None
    slope_y, slope_x, angle = along_y[best[0]], along_x[best[1]], float(np.angle(total[best]))
    rest = np.angle(products * np.exp(-1j * (angle + slope_y * y + slope_x * x)))
    change = weighted_plane(np.stack([y, x], axis=1), rest, np.abs(products))
    return angle + float(change[0]), float(slope_y + change[1]), float(slope_x + change[2])
