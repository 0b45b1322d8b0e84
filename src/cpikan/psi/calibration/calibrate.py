"""Calibration: a subsample of the frames gives the model of the pixel pass: steps, noise, thresholds, heights' range."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import gammainc, gammaincc, gammaincinv

from cpikan.errors import InputError
from cpikan.order_statistics import median
from cpikan.psi.calibration.samples.print_through import ripple_left, ripple_of
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.steps.stack_steps import StackSteps, stack_steps
from cpikan.psi.calibration.steps.step_fit import demodulated
from cpikan.psi.calibration.steps.structure import plain_structure
from cpikan.psi.calibration.wavelengths.alignment import Alignment
from cpikan.psi.calibration.wavelengths.common_error import CommonError
from cpikan.psi.calibration.wavelengths.order_model import MeasuredPhases, order_model
from cpikan.psi.kernels import reference
from cpikan.psi.kernels.model import Demodulation, PixelModel
from cpikan.psi.kernels.weight_field import model_demodulation
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.noise import NoiseModel, fit_noise, noise_from_neighbours, noise_from_residuals
from cpikan.psi.model.schemes import LEAST_SQUARES, design_matrix, phasor_weights

_SOME_DARK = 0.005  # share of pixels without fringes from which they are taken into account
_FIELD_PIXELS = 4096
_MEDIAN_CHI2 = 0.455  # of one degree of freedom
_FAINT = 5.0  # steps of the camera: the modulation below which its digitisation is a good part of the noise
_LOST_TO_LIGHT = 0.2  # share of saturated pixels that explains why there are no others
_LOST_LIT = 0.02  # share of lit pixels that may be lost to keep dark ones out


@dataclass(frozen=True)
class CalibrationSettings:
    """Choices of the user: the scheme, the height range (a length, or exact limits low and high), how heights are combined,
    what may differ between frames beside the step (None: what the frames show), and whether smooth errors between wavelengths
    may be taken off."""

    scheme: str = LEAST_SQUARES
    range_nm: float | tuple[float, float] | None = None
    finest: bool = False
    effects: tuple[str, ...] | None = None
    smooth_errors: bool = True


@dataclass(frozen=True)
class Calibration:
    """The model and what a report says about it; ``sigma_phase_rad`` is the median phase noise of each wavelength,
    ``sigma_nm_median`` that of the height. ``ripple_before_mrad`` (plain steps) and ``ripple_after_mrad`` (the model) are
    amplitudes at 1 to 4 times the fringes for each wavelength whose steps were fitted, None where they cannot be told.
    ``phases`` are those of several wavelengths as they were measured, ``common`` what smooth errors may add to sigma;
    ``acquisition`` is what the frames turned out to be where they contradict what was given (None: as given)."""

    model: PixelModel
    steps: StackSteps
    noise: tuple[NoiseModel, ...]
    sigma_phase_rad: tuple[float, ...]
    sigma_nm_median: float
    range_nm: float | None = None
    wrong_order_rate: float | None = None
    fit_across_wavelengths: float | None = None
    fits: bool = True
    alignment: Alignment | None = None
    phases: MeasuredPhases | None = None
    common: CommonError | None = None
    acquisition: Acquisition | None = None
    ripple_before_mrad: tuple[dict[int, float] | None, ...] | None = None
    ripple_after_mrad: tuple[dict[int, float] | None, ...] | None = None
    warnings: tuple[Caution, ...] = field(default=())

    @property
    def steps_deg(self) -> tuple[tuple[float, ...], ...]:
        return self.steps.steps_deg

    @property
    def systematic_share(self) -> float:
        """Give the share of the variance that is no noise: ripple, disagreement of the wavelengths, their common errors."""
        of_phases = float(self.model.demodulation.phase_floor_rad2.sum() / np.square(self.sigma_phase_rad).sum())
        common = 0.0 if self.common is None else (self.common.typical_nm / self.sigma_nm_median) ** 2
        return common + (1 - common) * of_phases


def calibrate(
    sample: Subsample,
    acquisition: Acquisition,
    saturation_dn: float,
    settings: CalibrationSettings,
    found: StackSteps | None = None,
) -> Calibration:
    """Fit everything the pixel pass needs; raises InputError when the frames hold no fringes to measure.

    ``found`` are steps that were found by other means (None: they are fitted, or taken as given).
    """
    return ordered(measured(sample, acquisition, saturation_dn, settings, found), acquisition, settings)


def measured(
    sample: Subsample,
    acquisition: Acquisition,
    saturation_dn: float,
    settings: CalibrationSettings,
    found: StackSteps | None = None,
) -> Calibration:
    """Fit what needs no wavelengths: steps, noise, thresholds; the orders are left to `ordered`. Raises as `calibrate` does."""
    usable = _usable(sample, saturation_dn)
    frames, position = sample.frames[..., usable], sample.position[usable]
    if found is None:
        steps, noise, plain = _first_model(sample, frames, position, acquisition, saturation_dn, settings)
    else:
        steps, noise = found, _noises(sample, frames, position, found, saturation_dn)
        plain = _demodulation(steps, noise, saturation_dn, settings.scheme, sample)
    if plain.models is not None:
        frames, position = (part[..., :: _every(frames)] for part in (frames, position.T))
        position = position.T
    plain = _calmed(plain, frames, position)
    phase, variance, modulation, snr, *_ = reference.demodulate(frames, plain, (position[:, 0], position[:, 1]))
    total = snr.sum(axis=0)
    plain = replace(plain, snr_min=_snr_threshold(total, len(frames)))
    seen = np.isfinite(variance).all(axis=0) & (total >= plain.snr_min)
    if seen.sum() < 3:
        raise _no_fringes(sample, saturation_dn)
    ripple = ripple_of(frames[..., seen], position[seen], phase[:, seen], steps, acquisition)
    left = ripple_left(ripple, steps)
    plain = replace(plain, phase_floor_rad2=plain.phase_floor_rad2 + left.variance_rad2)
    variance = variance + left.variance_rad2[:, None]
    sigma = tuple(math.sqrt(median(v)) for v in variance[:, seen])
    from_centre = position[seen] - (np.asarray(sample.shape) - 1) / 2
    guessed = any(one.source == "neighbours" for one in noise)
    waves = acquisition.wavelengths_nm
    level = phase[:, seen] - np.radians(acquisition.pistons_deg or (0.0,) * len(waves))[:, None]
    return Calibration(
        PixelModel(plain),
        steps,
        noise,
        sigma,
        sigma[0] * waves[0] / (4 * math.pi),
        phases=MeasuredPhases(waves, level, variance[:, seen], from_centre, sample.shape, sigma, guessed),
        ripple_before_mrad=None
        if steps.fits is None
        else tuple(None if one is None else one.before_mrad for one in ripple),
        ripple_after_mrad=None
        if steps.fits is None
        else tuple(None if one is None else one.after_mrad for one in ripple),
        warnings=steps.warnings + left.warnings + _faint(modulation[:, seen], sample.quantum_dn),
    )


def ordered(calibration: Calibration, acquisition: Acquisition, settings: CalibrationSettings) -> Calibration:
    """Take the order search of several wavelengths, those of ``acquisition``, into what was `measured`, and what it says about
    the noise; one wavelength has none. Raises NoAgreementError where the wavelengths agree on no height."""
    assert calibration.phases is not None
    phases = replace(calibration.phases, wavelengths_nm=acquisition.wavelengths_nm)
    if len(phases.wavelengths_nm) == 1:
        return replace(calibration, phases=None)
    found = order_model(phases, settings.range_nm, finest=settings.finest, smooth=settings.smooth_errors)
    plain = calibration.model.demodulation
    demodulation = replace(
        plain,
        noise=plain.noise * found.noise_factor,
        snr_min=plain.snr_min / found.noise_factor,
        phase_floor_rad2=plain.phase_floor_rad2 + found.phase_floor_rad2,
    )
    # phase errors that follow fringes or light are those of the neighbours too
    search = replace(found.search, shared=max(found.search.shared, calibration.steps.unexplained))
    noise = tuple(one.scaled(found.noise_factor) if phases.noise_is_guessed else one for one in calibration.noise)
    with_orders = replace(
        calibration,
        model=PixelModel(demodulation, search),
        noise=noise,
        sigma_phase_rad=found.sigma_rad,
        sigma_nm_median=math.hypot(found.sigma_nm, 0.0 if found.common is None else found.common.typical_nm),
        range_nm=found.range_nm,
        wrong_order_rate=found.wrong_order_rate,
        fit_across_wavelengths=found.fit,
        fits=found.fits,
        alignment=found.alignment,
        phases=phases,
        common=found.common,
        warnings=calibration.warnings + found.warnings,
    )
    return _with_pistons(with_orders, acquisition)


def _calmed(plain: Demodulation, frames: np.ndarray, position: np.ndarray) -> Demodulation:
    """Shorten the parity where what bright pixels (L, K, P) hold beside the model scatters more than noise.

    Wrong steps that do no harm, harmonics, ripple: they are everywhere, and known as such; a pixel that contradicts itself
    stands out from that.
    """
    noise, phasor = reference.noise_image(frames, plain, (position[:, 0], position[:, 1]))
    bright = [size >= median(size) for size in np.abs(phasor)]
    scatter = [median(one[lit] ** 2) for one, lit in zip(noise, bright, strict=True)]
    return replace(plain, parity=plain.parity / np.sqrt(np.maximum(np.array(scatter) / _MEDIAN_CHI2, 1))[:, None])


def _faint(modulation: np.ndarray, quantum_dn: float) -> tuple[Caution, ...]:
    """Warn of fringes (L, P) that are only a few steps of the camera high."""
    dimmest = min(map(median, modulation))
    if not 0 < dimmest < _FAINT * quantum_dn:
        return ()
    text = (
        f"the fringes are {2 * dimmest:.2g} DN high, {2 * dimmest / quantum_dn:.2g} steps of the camera: its digitisation is a "
        "good part of the noise; take more light, a longer exposure, a higher gain, or more bits"
    )
    return (Caution("fringes-faint", text),)


def _with_pistons(calibration: Calibration, acquisition: Acquisition) -> Calibration:
    """Take the pistons that are known off the phases of every pixel too."""
    search = calibration.model.search
    if acquisition.pistons_deg is None or search is None:
        return calibration
    known = np.array(acquisition.pistons_deg)[list(search.order)] / 360
    search = replace(search, piston_turns=search.piston_turns + known)
    return replace(calibration, model=replace(calibration.model, search=search))


def _first_model(
    sample: Subsample,
    frames: np.ndarray,
    position: np.ndarray,
    acquisition: Acquisition,
    saturation_dn: float,
    settings: CalibrationSettings,
) -> tuple[StackSteps, tuple[NoiseModel, ...], Demodulation]:
    """Find the steps, noise and demodulation, thresholds still open.

    Where tilts bring frames together in a part of the field, so that they leave the phase open there, the steps are fitted
    again as if they were the same everywhere, and the user is told.
    """
    effects, told = settings.effects, tuple[Caution, ...]()
    if settings.scheme != LEAST_SQUARES:  # other formulas are made for their steps
        acquisition = replace(acquisition, steps_said=True)
    while True:
        steps = stack_steps(frames, position, sample.rows, acquisition, effects)
        noise = _noises(sample, frames, position, steps, saturation_dn)
        try:
            plain = _demodulation(steps, noise, saturation_dn, settings.scheme, sample)
        except InputError as error:
            if settings.effects is not None or effects is not None:
                raise
            text = f"{error}; steps that are the same everywhere are used, the map carries what that leaves"
            effects, told = (), (Caution("steps-coincide", text),)
            continue
        return replace(steps, warnings=(*told, *steps.warnings)), noise, plain


def _noises(
    sample: Subsample, frames: np.ndarray, position: np.ndarray, steps: StackSteps, saturation_dn: float
) -> tuple[NoiseModel, ...]:
    """Estimate the noise of every wavelength under these steps."""
    quantum = 0.0 if math.isinf(saturation_dn) else sample.quantum_dn
    return tuple(_noise(frames[i], position, sample.rows.samples[i], steps, i, quantum) for i in range(len(frames)))


def _every(frames: np.ndarray) -> int:
    """Choose the stride of pixels where each has weights of its own, which take a while in plain NumPy."""
    return max(1, frames.shape[-1] // _FIELD_PIXELS)


def _usable(sample: Subsample, saturation_dn: float) -> np.ndarray:
    flat = sample.frames.reshape(-1, sample.frames.shape[-1])
    usable = sample.valid & np.isfinite(flat).all(axis=0) & (flat < saturation_dn).all(axis=0)
    if usable.sum() < 3:
        raise InputError(
            "no usable pixels: everything inside the mask is saturated, clipped at black, dead or not a number; check "
            f"exposure, black level, mask and --bit-depth (samples of {saturation_dn:g} DN and more count as saturated, the "
            f"largest is {_largest(flat):g})"
        )
    return usable


def _largest(flat: np.ndarray) -> float:
    finite = flat[np.isfinite(flat)]
    return float(finite.max()) if finite.size else math.nan


def _no_fringes(sample: Subsample, saturation_dn: float) -> InputError:
    """Make the refusal of frames in which no pixel is measured: often those with fringes are saturated."""
    saturated = (sample.frames[..., sample.valid] >= saturation_dn).any(axis=(0, 1)).mean()
    if saturated > _LOST_TO_LIGHT:
        return InputError(
            f"no fringes are left: {saturated:.0%} of the pixels are saturated in at least one frame (at {saturation_dn:g} "
            "DN), the others hold none; take less light, a shorter exposure or a lower gain, or correct --bit-depth"
        )
    return InputError(
        "no fringes found: the frames do not change with the phase steps anywhere in the mask; check the frames, their "
        "order and the steps"
    )


def _noise(
    frames: np.ndarray, position: np.ndarray, rows: np.ndarray, steps: StackSteps, i: int, quantum: float
) -> NoiseModel:
    """Estimate the noise of one wavelength: from what the fit of the steps leaves over, else from neighbours."""
    fit = None if steps.fits is None or not steps.fits[i].determined else steps.fits[i]
    left = len(frames) - 3 - (0 if fit is None else 2 * len(fit.model.harmonics))
    if left < 1:
        return noise_from_neighbours(rows, quantum)
    if fit is None:
        known = steps.floor_rad2 is not None and steps.floor_rad2[i] is not None
        structure = plain_structure(frames, position, steps.steps_deg[i]) if known else None
        if structure is None or not structure.significant:
            return fit_noise(frames, steps.steps_deg[i], quantum)
        background = np.linalg.pinv(design_matrix(steps.steps_deg[i]))[0] @ frames
        return noise_from_residuals(background, (structure.rest**2).sum(axis=0) / left, quantum)
    found, squares = demodulated(fit, np.asarray(frames, np.float64), np.asarray(position, np.float64))
    return noise_from_residuals(found[0], squares / left, quantum)


def _demodulation(
    steps: StackSteps, noise: tuple[NoiseModel, ...], saturation_dn: float, scheme: str, sample: Subsample
) -> Demodulation:
    """Make the demodulation: fitted frames by their model, given steps and special schemes by uniform weights."""
    if steps.fits is not None and scheme == LEAST_SQUARES:
        lines, columns = sample.position[sample.valid].T
        region = ((int(lines.min()), int(lines.max())), (int(columns.min()), int(columns.max())))
        found = model_demodulation(steps.models, noise, saturation_dn, sample.shape, region)
        floor = np.array([fit.ripple_rad**2 / 2 for fit in steps.fits])  # of a sine of that amplitude
        return replace(found, phase_floor_rad2=floor, black_dn=sample.black_dn)
    weights = [phasor_weights(scheme, row) for row in steps.steps_deg]
    floors = [None] * len(weights) if steps.floor_rad2 is None else steps.floor_rad2
    return Demodulation.of_weights(
        weights,
        # float frames without any noise would divide by zero: a millionth of a count is below every camera
        np.array([[max(n.read_dn2, 1e-12), n.gain_dn] for n in noise]),
        phase_floor_rad2=np.array([f or 0.0 for f in floors]),
        saturation_dn=saturation_dn,
        black_dn=sample.black_dn,
    )


def _snr_threshold(snr: np.ndarray, wavelengths: int) -> float:
    """Find the signal-to-noise total that best separates pixels with fringes from pixels without.

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
    grid = np.geomspace(lowest, max(60 * lowest, median(snr)), 200)
    measured = np.searchsorted(np.sort(snr), grid) / snr.size
    lost = np.maximum(measured - dark * gammainc(half_dof, grid / 2), 0)
    cost = dark * gammaincc(half_dof, grid / 2) + lost
    # stay above the lower edge of a gap, but well below lit pixels
    best = np.flatnonzero(cost <= cost.min() + 1e-6)
    return float(min(2 * grid[best[0]], np.sqrt(grid[best[0]] * grid[best[-1]])))
