"""Few or bad frames: the fit of a smooth surface, smooth light, steps, tilts and gains to the raw samples together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cpikan.errors import InputError, check_name
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.surface_fit.frame_residuals import NetworkPhase
from cpikan.psi.calibration.surface_fit.problem import Samples
from cpikan.psi.calibration.surface_fit.regularise import (
    DEGREES,
    Pixels,
    RegularisedFit,
    covariance_of,
    needs_harmonic,
    refine_with_prior,
    with_more_terms,
)
from cpikan.psi.calibration.surface_fit.result import SurfaceFit
from cpikan.psi.calibration.surface_fit.starts import (
    LocalMinimum,
    closed_candidates,
    closed_forms,
    descend_coarse_to_fine,
    mirrored,
    smooth_candidates,
    with_network,
    with_positive_fringes,
)
from cpikan.psi.calibration.surface_fit.verdict import Thresholds, judged
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.noise import NoiseModel, noise_from_residuals

_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
_LEAST_SHARE = 1e-4  # of the frames' scatter: float frames without noise are known to rounding, far below this


def sample_noise(rows: np.ndarray, quantum_dn: float) -> NoiseModel:
    """Fit the variance over intensity from fourth differences along rows (..., W), broken pixels and edges left out.

    White noise has 70 times its variance in a fourth difference, fringes of period p pixels only (2 pi / p)^4 of their
    amplitude: a hundredth at 20 pixels. Means of squares are not biased by quantisation as medians of whole numbers are.
    """
    samples = np.asarray(rows, np.float64)
    width = samples.shape[-1] - 4
    if width < 1:
        return NoiseModel(quantum_dn**2 / 12, 0.0, "neighbours", 0)
    shifted = [samples[..., i : i + width] for i in range(5)]
    fourth = sum(c * part for c, part in zip(_FOURTH, shifted, strict=True))
    level = sum(shifted[1:], shifted[0]) / 5.0
    found = noise_from_residuals(level.ravel(), np.asarray(fourth**2 / 70.0).ravel(), quantum_dn)
    return NoiseModel(found.read_dn2, found.gain_dn, "neighbours", found.pixels)


def noise_of_samples(rows: np.ndarray, frames: np.ndarray, quantum_dn: float) -> tuple[float, np.ndarray]:
    """Estimate the noise of a sample of medium light in DN, and its ratio to the noise of each of ``frames`` (K, P)."""
    model = sample_noise(rows, quantum_dn)
    variance = np.maximum(model.variance(frames), (_LEAST_SHARE * float(frames.std())) ** 2)
    medium = float(np.median(variance))
    return medium**0.5, np.sqrt(medium / variance)


@dataclass(frozen=True)
class RawFrames:
    """All usable ``samples``, those of the fit among them (``pixels``), and the ``frames_dn`` (K, P) at ``position`` (P, 2)
    from which they were made."""

    samples: Samples
    pixels: Pixels
    position: np.ndarray
    frames_dn: np.ndarray


MinimumSearch = Callable[[RawFrames, int, Thresholds], list[LocalMinimum]]  # the number is the seed of random starts


@dataclass(frozen=True)
class Ranking:
    """The ``best`` minimum, ``pixels`` in its unit, the logarithm of the odds against the next different surface
    (``runner_up``, infinite where there is none), and how many starts led to the best."""

    best: RegularisedFit
    pixels: Pixels
    runner_up: float
    agreeing: int


def part_pixels(samples: Samples, count: int) -> Pixels:
    """Choose pixels to fit, evenly among all, and as many others to judge the fit by."""
    total = len(samples.points)
    which = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    others = np.setdiff1d(np.arange(total), which)
    return Pixels(samples.only(which), samples.only(others).some(count) if len(others) else samples.only(others))


def find_minima(raw: RawFrames, seed: int, limits: Thresholds) -> list[LocalMinimum]:
    """Follow starts to minima, best first.

    Rounds of random ones until one leaves no more than noise, or several in two rounds agree.
    """
    closed = closed_forms(raw.samples, raw.position, raw.frames_dn)
    tried = closed_candidates(raw.samples, closed)
    found: list[LocalMinimum] = []
    for turn in range(limits.rounds):
        tried += smooth_candidates(raw.samples, closed if turn == 0 else [], seed + turn)[: limits.starts_per_round]
        found = sorted([*found, *descend_coarse_to_fine(raw.pixels.fitted, tried)], key=lambda one: one.chi2)
        alike = sum(one.chi2 < limits.alike_chi2 * found[0].chi2 for one in found)
        if found and (found[0].chi2 < limits.good_chi2 or (turn > 0 and alike >= limits.agreeing)):
            break
        tried = []
    return found


def rank_minima(raw: RawFrames, found: list[LocalMinimum], limits: Thresholds) -> Ranking:
    """Refine the best minima with terms as large as the frames show, and compare them by their evidence."""
    fits, pixels = _regularised(raw, found, limits)
    best = fits[0]
    rivals = [
        best.evidence(best.temperature) - o.evidence(best.temperature) for o in fits[1:] if _differ(o, best, limits)
    ]
    agreeing = sum(one.agreeing for one in fits if not _differ(one, best, limits))
    return Ranking(best, pixels, min(rivals, default=np.inf), agreeing)


def _regularised(raw: RawFrames, found: list[LocalMinimum], limits: Thresholds) -> tuple[list[RegularisedFit], Pixels]:
    """Refine the best minima with a prior of the size that the frames show.

    Returns them by falling evidence, with the pixels in their unit.
    """
    pixels = raw.pixels.in_unit_of(found[0])
    degrees = replace(DEGREES, has_second_harmonic=needs_harmonic(pixels, found[0]))
    near: list[list[LocalMinimum]] = []
    for one in (_gauged(one, raw.samples) for one in found if one.chi2 <= limits.close_chi2 * found[0].chi2):
        same = [group for group in near if np.std(group[0].phase_rad - one.phase_rad) < limits.same_rad]
        same[0].append(one) if same else near.append([one])
    fits = [
        replace(refine_with_prior(pixels, group[0], degrees), agreeing=len(group))
        for group in near[: limits.most_minima]
    ]
    fits = [replace(one, minimum=_gauged(one.minimum, raw.samples)) for one in fits]
    coldest = min(one.temperature for one in fits)
    return sorted(fits, key=lambda one: -one.evidence(coldest)), pixels


def _gauged(one: LocalMinimum, samples: Samples) -> LocalMinimum:
    """Make B positive, and the sign that of the convention where the steps leave it open."""
    one = with_positive_fringes(one)
    first = float(one.parameters[one.model.layout.blocks["step"][0]])
    wrong = samples.steps_rad is None and np.sin(first) < 0
    return mirrored(one) if wrong else one


def _differ(one: RegularisedFit, other: RegularisedFit, limits: Thresholds) -> bool:
    off = float(np.std(one.minimum.phase_rad - other.minimum.phase_rad))
    return off > max(limits.same_rad, limits.same_sigmas * max(one.sigma_rad, other.sigma_rad))


FIELDS = ("chebyshev", "cpikan")
_TAILS = (0.002, 0.998)  # of the phase, for the number of fringes
_SIGN_FROM = {"trusted": "steps", "nominal": "nominal", "unknown": "assumed"}


@dataclass(frozen=True)
class SurfaceFitOptions:
    """``field``: the phase as a Chebyshev series, or as a polynomial with a Scaled-cPIKAN on top; ``seed`` of the random
    starts; ``wavelength``: which of the acquisition's; ``search`` finds the minima to choose from."""

    field: Literal["chebyshev", "cpikan"] = "chebyshev"
    seed: int = 0
    wavelength: int = 0
    limits: Thresholds = dataclasses.field(default_factory=Thresholds)
    search: MinimumSearch = find_minima

    def __post_init__(self) -> None:
        check_name("field", self.field, FIELDS)


def fit_surface_to_frames(
    sample: Subsample, acquisition: Acquisition, saturation_dn: float, options: SurfaceFitOptions = SurfaceFitOptions()
) -> SurfaceFit:
    """Fit surface, light, steps, tilts and gains to two or more frames of one wavelength, from a subsample of their pixels.

    I_k = g_k (A + B cos(phi + delta_k + t_k . r)) is fitted to raw samples in units of their noise (robust
    Levenberg-Marquardt), phi, A and B being smooth: some hundred unknowns for thousands of samples, where pixel by pixel
    there are three for each. Starts are what closed forms give (Gram-Schmidt for two frames: Vargas et al., Opt. Lett. 37,
    443 (2012)) and random smooth phases. How large the terms of each degree may be follows from the frames (largest
    evidence), and minima are compared by their evidence. The covariance is that of all unknowns together. Given steps are
    held (trusted) or are the centre of a prior of 30 deg (nominal). With unknown ones the sign is open: 0 < step 1 < 180
    deg is assumed. Whether the surface is determined stands in ``verdict`` and ``reason``; nothing is raised for that.
    Raises InputError for fewer than two frames or too few usable pixels.
    """
    at, limits = options.wavelength, options.limits
    frames, position = _usable(sample, at, saturation_dn, limits.fewest_pixels)
    noise, sharpness = noise_of_samples(sample.rows.samples[at], frames, 0.0 if np.isinf(saturation_dn) else 1.0)
    low, high = position.min(axis=0), position.max(axis=0)
    points = (2 * position - low - high) / np.maximum(high - low, 1e-12)
    given = None if acquisition.phase_steps_deg is None else acquisition.phase_steps_deg[at]
    steps = None if given is None else np.radians(np.asarray(given, float) - given[0])
    samples = Samples(points, frames / noise, sharpness, steps, acquisition.steps)
    wanted = sample.shape[0] * sample.shape[1] // limits.pixel_share
    pixels = part_pixels(samples, int(np.clip(wanted, limits.least_pixels, limits.most_pixels)))
    raw = RawFrames(samples, pixels, position, frames)
    ranking = rank_minima(raw, options.search(raw, options.seed, limits), limits)
    best = with_more_terms(ranking.pixels, ranking.best)
    if options.field == "cpikan":
        network = with_network(ranking.pixels.fitted, best.minimum, best.spreads, options.seed)
        best = replace(best, minimum=network, covariance=covariance_of(network, best.temperature))
    model, form = best.minimum.model, best.minimum.model.form
    slopes = form.jacobian(model.layout.split(best.minimum.parameters[None]).form)[1][0].numpy()
    fringes = np.ptp(np.quantile(best.minimum.phase_rad, _TAILS)) / (2 * np.pi)
    fit = SurfaceFit(
        wavelength_nm=acquisition.wavelengths_nm[at],
        box=((float(low[0]), float(high[0])), (float(low[1]), float(high[1]))),
        pivot=(float(position[:, 0].mean()), float(position[:, 1].mean())),
        degrees=best.minimum.degrees,
        layout=model.layout,
        parameters=best.minimum.parameters.numpy(),
        covariance=best.covariance,
        centre=slopes.mean(axis=0),
        noise_dn=noise,
        unit_dn=noise * best.unit,
        chi2=best.chi2,
        held_chi2=best.held_chi2,
        temperature=best.temperature,
        unevenness=best.unevenness,
        agreeing=ranking.agreeing,
        fringes=float(fringes),
        iterations=best.minimum.iterations,
        sign=_SIGN_FROM[acquisition.steps],
        start=best.minimum.source,
        runner_up=ranking.runner_up,
        network=form if isinstance(form, NetworkPhase) else None,
    )
    return judged(fit, model.points.numpy(), limits)


def _usable(sample: Subsample, at: int, saturation_dn: float, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    frames = np.asarray(sample.frames[at], np.float64)
    if len(frames) < 2:
        raise InputError(f"{len(frames)} frame: a fit of the frames needs two or more")
    usable = sample.valid & np.isfinite(frames).all(axis=0) & (frames < saturation_dn).all(axis=0)
    if usable.sum() < fewest:
        raise InputError(
            f"{int(usable.sum())} of {usable.size} sampled pixels are usable: a fit of the frames needs {fewest}; "
            "check exposure and mask"
        )
    return frames[:, usable], np.asarray(sample.position[usable], np.float64)
