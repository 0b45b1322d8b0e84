"""From a subsample of the frames to the model of the pixel pass: steps, noise, thresholds, where the heights lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv

from cpikan.errors import InputError
from cpikan.psi import planning
from cpikan.psi.acquisition import Acquisition
from cpikan.psi.aia import EstimatedSteps, estimate_steps
from cpikan.psi.alignment import Alignment, Ranges, Samples, align
from cpikan.psi.kernels import reference
from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.kernels.model import Demodulation, OrderSearch, PixelModel
from cpikan.psi.noise import NoiseModel, fit_noise, noise_from_neighbours
from cpikan.psi.schemes import CARRE, LEAST_SQUARES, phasor_weights
from cpikan.units import format_length

_MISFIT_CHANCE = 1e-7  # a pixel this unlikely to be noise does not fit its order
_FARTHEST_NM = 131072.0  # float32 heights are spaced by 0.008 nm below it
_EDGE_SIGMA = 8.0  # noise of the anchor allowed for at the ends of the range; pixels differ in modulation
_MARGIN = 0.15  # of the heights' extent, searched on either side of it before anything farther


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
    return _with_orders(
        calibration,
        acquisition.wavelengths_nm,
        phase[:, measured],
        variance[:, measured],
        position,
        sample.shape,
        settings,
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
    estimated = tuple(
        estimate_steps(frames[i], given[i] if given is not None else None) for i in range(frames.shape[0])
    )
    for one in estimated:
        if one.conditioning < 0.05:
            raise InputError(
                f"the frames do not determine their phase steps (estimate {[round(s, 1) for s in one.steps_deg]} deg): "
                "give --phase-steps with --steps trusted"
            )
    return tuple(one.steps_deg for one in estimated), estimated


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
    lowest = 0.05 * float(2 * gammaincinv(half_dof, 0.999))
    grid = np.geomspace(lowest, max(60 * lowest, float(np.median(snr))), 200)
    measured = np.searchsorted(np.sort(snr), grid) / snr.size
    lost = np.maximum(measured - dark * gammainc(half_dof, grid / 2), 0)
    cost = dark * gammaincc(half_dof, grid / 2) + lost
    # dark pixels are not quite Gaussian (quantisation): stay above the lower edge of the gap, but well below lit ones
    best = np.flatnonzero(cost <= cost.min() + 1e-6)
    return float(min(2 * grid[best[0]], np.sqrt(grid[best[0]] * grid[best[-1]])))


def _with_orders(
    calibration: Calibration,
    wavelengths_nm: tuple[float, ...],
    phase: np.ndarray,
    variance: np.ndarray,
    position: np.ndarray,
    shape: tuple[int, int],
    settings: CalibrationSettings,
) -> Calibration:
    """Add the order search: range, pistons and tilts, extent of the heights, phase variance that frame noise leaves open."""
    waves = np.asarray(wavelengths_nm)
    order = tuple(int(i) for i in np.argsort(waves, kind="stable"))
    half = float(waves.min()) / 2
    ratio = waves.min() / waves[list(order)]
    samples = Samples(phase[list(order)] / (2 * np.pi), variance[list(order)] / (2 * np.pi) ** 2, position, ratio)
    limits = settings.range_nm if isinstance(settings.range_nm, tuple) else None
    if isinstance(settings.range_nm, tuple):
        alignment = _fixed(samples, settings.range_nm[0] / half, settings.range_nm[1] / half)
        range_nm = settings.range_nm[1] - settings.range_nm[0]
    else:
        range_nm = settings.range_nm or planning.widest_range_nm(wavelengths_nm, calibration.sigma_phase_rad)
        alignment = align(
            samples, search_orders(ratio), _ranges(wavelengths_nm, calibration.sigma_phase_rad, range_nm, half)
        )
    if any(one.source == "neighbours" for one in calibration.noise):
        calibration, alignment = _rescaled(calibration, alignment)
    floor = _phase_floor(alignment, calibration.sigma_phase_rad, len(waves))
    model = replace(calibration.model.demodulation, phase_floor_rad2=np.full(len(waves), floor))
    sigma = tuple(math.sqrt(s**2 + floor) for s in calibration.sigma_phase_rad)
    rate = planning.expected_wrong_order_rate(wavelengths_nm, sigma, range_nm)
    # a height at an end of the range has a phase beyond it as often as not: its order must still be among the candidates
    edge = min(_EDGE_SIGMA * sigma[order[0]] / (2 * math.pi), 0.25) * half
    search = _search(alignment, order, ratio, half, range_nm, edge, rate, limits, shape, settings.finest)
    extent = (alignment.high_turns - alignment.low_turns) * half
    spread = samples.variance + floor / (2 * np.pi) ** 2
    weight = (ratio[:, None] ** 2 / spread)[:1] if settings.finest else ratio[:, None] ** 2 / spread
    return replace(
        calibration,
        model=PixelModel(model, search),
        sigma_phase_rad=sigma,
        sigma_nm_median=half / float(np.sqrt(np.median(weight.sum(axis=0)))),
        range_nm=range_nm,
        wrong_order_rate=rate,
        alignment=alignment,
        warnings=calibration.warnings + _range_warnings(rate, range_nm, extent, settings),
    )


def _rescaled(calibration: Calibration, alignment: Alignment) -> tuple[Calibration, Alignment]:
    """Noise guessed from neighbours, corrected by what the wavelengths really disagree: exact even with three frames."""
    factor = alignment.misfit if alignment.misfit > 0 else 1.0
    noise = tuple(
        replace(one, read_dn2=one.read_dn2 * factor, gain_dn=one.gain_dn * factor, source="wavelengths")
        for one in calibration.noise
    )
    model = calibration.model.demodulation
    model = replace(model, noise=model.noise * factor, snr_min=model.snr_min / factor)
    sigma = tuple(s * math.sqrt(factor) for s in calibration.sigma_phase_rad)
    fresh = replace(calibration, model=PixelModel(model), noise=noise, sigma_phase_rad=sigma)
    return fresh, replace(alignment, misfit=1.0)


def _ranges(wavelengths_nm: tuple[float, ...], sigma_rad: tuple[float, ...], range_nm: float, half: float) -> Ranges:
    """What can be searched while pistons are unknown (phases then err by more than noise), and for the common height."""
    loose = [math.hypot(s, 0.1) for s in sigma_rad]
    averaged = [s / 30 for s in sigma_rad]  # pistons are means over about a thousand pixels
    robust = min(range_nm, planning.widest_range_nm(wavelengths_nm, loose, rate=1e-4))
    absolute = max(range_nm, planning.widest_range_nm(wavelengths_nm, averaged))
    return Ranges(range_nm / half, robust / half, absolute / half, _FARTHEST_NM / half)


def _range_warnings(rate: float, range_nm: float, extent_nm: float, settings: CalibrationSettings) -> tuple[str, ...]:
    found = []
    if rate > 1e-4:
        found.append(
            f"expected wrong fringe orders: {rate:.2g} of the pixels over a range of {format_length(range_nm)} at this "
            "noise; a shorter --range, more frames or more wavelengths help"
        )
    if settings.range_nm is None and extent_nm > 0.9 * range_nm:
        found.append(
            f"the heights fill the whole range of {format_length(range_nm)} that this noise allows: larger ones fold over; "
            "give --range, or lower the noise"
        )
    return tuple(found)


def _fixed(samples: Samples, low: float, high: float) -> Alignment:
    """Exact limits mean exact phases: no pistons are estimated."""
    best = search_orders(samples.ratio)(samples.turns, samples.variance, low, high - low)[2]
    dof = max(len(samples.ratio) - 1, 1)
    keep = best <= max(30.0, 8 * float(np.median(best)))
    zero = np.zeros(len(samples.ratio))
    return Alignment(zero, np.zeros((len(zero), 2)), low, high, True, float(best[keep].mean()) / dof, int(keep.sum()))


def _phase_floor(alignment: Alignment, sigma_rad: tuple[float, ...], wavelengths: int) -> float:
    """Phase variance beside frame noise (step errors, harmonics, wavelength errors), from what the wavelengths disagree."""
    excess = alignment.misfit - 1.0
    scatter = math.sqrt(2 / max((wavelengths - 1) * alignment.pixels, 1))
    return float(np.mean(np.square(sigma_rad))) * excess if excess > 4 * scatter else 0.0


def _search(
    alignment: Alignment,
    order: tuple[int, ...],
    ratio: np.ndarray,
    half: float,
    range_nm: float,
    edge_nm: float,
    rate: float,
    limits: tuple[float, float] | None,
    shape: tuple[int, int],
    finest: bool,
) -> OrderSearch:
    low = (limits[0] if limits is not None else alignment.centre_turns * half - range_nm / 2) - edge_nm
    range_nm = range_nm + 2 * edge_nm
    extent = (alignment.high_turns - alignment.low_turns) * half
    margin = _MARGIN * extent + half
    near_low, near = alignment.low_turns * half - margin, extent + 2 * margin
    # where wrong orders are expected the whole range decides, as asked; otherwise looking farther cannot change an order
    if rate > planning.ACCEPTED_RATE or near >= range_nm:
        near_low, near = low, range_nm
    return OrderSearch(
        order=order,
        ratio=ratio,
        half_wave_nm=half,
        piston_turns=alignment.piston_turns,
        tilt_turns=alignment.tilt_turns,
        centre=((shape[0] - 1) / 2, (shape[1] - 1) / 2),
        low_nm=low,
        range_nm=range_nm,
        near_low_nm=near_low,
        near_range_nm=near,
        misfit_max=float(2 * gammainccinv(max(len(ratio) - 1, 1) / 2, _MISFIT_CHANCE)),
        finest=finest,
    )
