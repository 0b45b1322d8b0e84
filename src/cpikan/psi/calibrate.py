"""From a subsample of the frames to the model of the pixel pass: steps, noise, thresholds, where the heights lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import gammainc, gammaincc, gammaincinv

from cpikan.errors import InputError
from cpikan.psi.acquisition import Acquisition
from cpikan.psi.aia import EstimatedSteps, estimate_steps
from cpikan.psi.alignment import Alignment
from cpikan.psi.kernels import reference
from cpikan.psi.kernels.model import Demodulation, PixelModel
from cpikan.psi.noise import NoiseModel, fit_noise, noise_from_neighbours
from cpikan.psi.order_model import MeasuredPhases, order_model
from cpikan.psi.schemes import CARRE, LEAST_SQUARES, phasor_weights

_SOME_DARK = 0.005  # share of pixels without fringes from which they are taken into account
_LOST_LIT = 0.02  # share of lit pixels that may be lost to keep dark ones out


@dataclass(frozen=True)
class Subsample:
    """Some pixels of a stack: ``frames`` (L, K, P), ``position`` (P, 2) row and column, ``rows`` (L, K, n, W) whole rows.

    ``valid`` (P,) is the user's mask there. ``shape`` is the image's (H, W).
    """

    frames: np.ndarray
    position: np.ndarray
    rows: np.ndarray
    valid: np.ndarray
    shape: tuple[int, int]


@dataclass(frozen=True)
class CalibrationSettings:
    """What the user fixed: the scheme, the height range (a length, or exact limits low and high), how heights are combined."""

    scheme: str = LEAST_SQUARES
    range_nm: float | tuple[float, float] | None = None
    finest: bool = False


@dataclass(frozen=True)
class Calibration:
    """The model and what a report says about it; ``sigma_phase_rad`` is the median phase noise of each wavelength,
    ``sigma_nm_median`` that of the height."""

    model: PixelModel
    steps_deg: tuple[tuple[float, ...], ...]
    estimated: tuple[EstimatedSteps, ...] | None
    noise: tuple[NoiseModel, ...]
    sigma_phase_rad: tuple[float, ...]
    sigma_nm_median: float
    range_nm: float | None = None
    wrong_order_rate: float | None = None
    alignment: Alignment | None = None
    warnings: tuple[str, ...] = field(default=())


def calibrate(
    sample: Subsample, acquisition: Acquisition, saturation_dn: float, settings: CalibrationSettings
) -> Calibration:
    """Fit everything the pixel pass needs; raises InputError when the frames hold no fringes to measure."""
    usable = _usable(sample, saturation_dn)
    steps, estimated = _steps(sample.frames[..., usable], acquisition)
    quantum = 0.0 if math.isinf(saturation_dn) else 1.0
    noise = tuple(_noise(sample, usable, i, row, quantum) for i, row in enumerate(steps))
    plain = _demodulation(steps, noise, saturation_dn, settings.scheme)
    frames = sample.frames[..., usable]
    threshold = _snr_threshold(reference.demodulate(frames, plain)[3].sum(axis=0), len(steps))
    plain = replace(plain, snr_min=threshold)
    phase, variance, _, snr, _ = reference.demodulate(frames, plain)
    measured = np.isfinite(variance).all(axis=0) & (snr.sum(axis=0) >= threshold)
    if measured.sum() < 3:
        raise InputError(
            "no fringes found: the frames do not change with the phase steps anywhere in the mask; check the frames, "
            "their order and the steps"
        )
    sigma = tuple(float(np.sqrt(np.median(v))) for v in variance[:, measured])
    warnings = _step_warnings(estimated)
    sigma_nm = sigma[0] * acquisition.wavelengths_nm[0] / (4 * math.pi)
    calibration = Calibration(PixelModel(plain), steps, estimated, noise, sigma, sigma_nm, warnings=warnings)
    if len(steps) == 1:
        return calibration
    position = sample.position[usable][measured] - (np.asarray(sample.shape) - 1) / 2
    guessed = any(one.source == "neighbours" for one in noise)
    waves = acquisition.wavelengths_nm
    phases = MeasuredPhases(waves, phase[:, measured], variance[:, measured], position, sample.shape, sigma, guessed)
    return _with_orders(calibration, phases, settings)


def _with_orders(calibration: Calibration, phases: MeasuredPhases, settings: CalibrationSettings) -> Calibration:
    """Take the order search of several wavelengths into the model, and what it says about the noise."""
    found = order_model(phases, settings.range_nm, finest=settings.finest)
    plain = calibration.model.demodulation
    demodulation = replace(
        plain,
        noise=plain.noise * found.noise_factor,
        snr_min=plain.snr_min / found.noise_factor,
        phase_floor_rad2=np.full(plain.wavelengths, found.phase_floor_rad2),
    )
    noise = tuple(one.scaled(found.noise_factor) if phases.noise_is_guessed else one for one in calibration.noise)
    return replace(
        calibration,
        model=PixelModel(demodulation, found.search),
        noise=noise,
        sigma_phase_rad=found.sigma_rad,
        sigma_nm_median=found.sigma_nm,
        range_nm=found.range_nm,
        wrong_order_rate=found.wrong_order_rate,
        alignment=found.alignment,
        warnings=calibration.warnings + found.warnings,
    )


def _usable(sample: Subsample, saturation_dn: float) -> np.ndarray:
    flat = sample.frames.reshape(-1, sample.frames.shape[-1])
    usable = sample.valid & np.isfinite(flat).all(axis=0) & (flat < saturation_dn).all(axis=0)
    if usable.sum() < 3:
        raise InputError(
            "no usable pixels: everything inside the mask is saturated, dead or not a number; check exposure and mask"
        )
    return usable


def _steps(
    frames: np.ndarray, acquisition: Acquisition
) -> tuple[tuple[tuple[float, ...], ...], tuple[EstimatedSteps, ...] | None]:
    given = acquisition.phase_steps_deg
    if acquisition.steps == "trusted" and given is not None:
        return given, None
    estimated = tuple(_estimate(frames[i], None if given is None else given[i]) for i in range(frames.shape[0]))
    for one in estimated:
        if one.conditioning < 0.05:
            raise InputError(
                f"the frames do not determine their phase steps (estimate {[round(s, 1) for s in one.steps_deg]} deg): "
                "give --phase-steps with --steps trusted"
            )
    return tuple(one.steps_deg for one in estimated), estimated


def _estimate(frames: np.ndarray, nominal_deg: tuple[float, ...] | None) -> EstimatedSteps:
    """Steps from the frames; nominal ones give the sign, and the start where three frames leave no other.

    A start near the nominal steps stays near them when few distinct frames hardly constrain the steps; a blind one uses
    all the frames say.
    """
    if nominal_deg is None or frames.shape[0] == 3:
        return estimate_steps(frames, nominal_deg)
    found = estimate_steps(frames, None)
    same, mirrored = (
        float(np.cos(np.radians(np.subtract(nominal_deg, np.multiply(sign, found.steps_deg)))).sum())
        for sign in (1, -1)
    )
    if same >= mirrored:
        return found
    return replace(found, steps_deg=tuple(float(-step % 360) for step in found.steps_deg))


def _step_warnings(estimated: tuple[EstimatedSteps, ...] | None) -> tuple[str, ...]:
    late = [i for i, one in enumerate(estimated or ()) if not one.converged]
    return tuple(f"the phase steps of wavelength {i + 1} did not settle: give them, or more fringes" for i in late)


def _noise(sample: Subsample, usable: np.ndarray, i: int, steps: tuple[float, ...], quantum: float) -> NoiseModel:
    if len(steps) > 3:
        return fit_noise(sample.frames[i][..., usable], steps, quantum)
    return noise_from_neighbours(sample.rows[i], quantum)


def _demodulation(
    steps: tuple[tuple[float, ...], ...], noise: tuple[NoiseModel, ...], saturation_dn: float, scheme: str
) -> Demodulation:
    weights = [phasor_weights(scheme, row) for row in steps]
    return Demodulation(
        cosine=np.stack([w.cosine for w in weights]),
        sine=np.stack([w.sine for w in weights]),
        mean=np.stack([w.mean for w in weights]),
        covariance=np.stack([w.covariance for w in weights]),
        # float frames without any noise would divide by zero: a millionth of a count is below every camera
        noise=np.array([[max(n.read_dn2, 1e-12), n.gain_dn] for n in noise]),
        phase_floor_rad2=np.zeros(len(steps)),
        saturation_dn=saturation_dn,
        carre=scheme == CARRE,
    )


def _snr_threshold(snr: np.ndarray, wavelengths: int) -> float:
    """The signal-to-noise total that best separates pixels with fringes from pixels without.

    Without fringes the total is chi squared with 2 L degrees of freedom. The share of such pixels is read off below the
    median of that law; the threshold minimises false measurements plus lost ones. Without dark pixels it is near zero.
    """
    snr = snr[np.isfinite(snr)]
    half_dof = float(wavelengths)  # chi squared with 2 L degrees of freedom, as an incomplete gamma function
    if snr.size == 0:
        return float(2 * gammaincinv(half_dof, 0.999))
    dark = min(1.0, 2 * float((snr < 2 * gammaincinv(half_dof, 0.5)).mean()))
    # dark pixels are not quite Gaussian (quantisation): where lit ones stand clear of them, keep a wide distance
    strong = float(4 * gammaincinv(half_dof, 1 - 1e-4))
    lit = max(1.0 - dark, 1e-9)
    if dark > _SOME_DARK and ((snr < strong).mean() - dark) / lit < _LOST_LIT:
        return strong
    lowest = 0.05 * float(2 * gammaincinv(half_dof, 0.999))
    grid = np.geomspace(lowest, max(60 * lowest, float(np.median(snr))), 200)
    measured = np.searchsorted(np.sort(snr), grid) / snr.size
    lost = np.maximum(measured - dark * gammainc(half_dof, grid / 2), 0)
    cost = dark * gammaincc(half_dof, grid / 2) + lost
    # stay above the lower edge of a gap, but well below lit pixels
    best = np.flatnonzero(cost <= cost.min() + 1e-6)
    return float(min(2 * grid[best[0]], np.sqrt(grid[best[0]] * grid[best[-1]])))
