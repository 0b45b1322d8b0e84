"""Few or bad frames: the fit of a smooth surface, smooth light, steps, tilts and gains to the raw samples together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.psi.calibration.calibrate import Subsample
from cpikan.psi.calibration.surface_fit.frame_residuals import NetworkPhase
from cpikan.psi.calibration.surface_fit.grow import Grown, carried, mirrored, with_network, with_positive_fringes
from cpikan.psi.calibration.surface_fit.noise import noise_of_samples
from cpikan.psi.calibration.surface_fit.problem import Samples
from cpikan.psi.calibration.surface_fit.result import FrameFieldFit
from cpikan.psi.calibration.surface_fit.settle import (
    DEGREES,
    Pixels,
    Settled,
    bends,
    covariance_of,
    settled,
    with_more_terms,
)
from cpikan.psi.calibration.surface_fit.starts import closed_candidates, closed_forms, smooth_candidates
from cpikan.psi.model.acquisition import Acquisition

FIELDS = ("chebyshev", "cpikan")
_FEWEST_PIXELS = 500
_SHARE, _LEAST, _MOST = 16, 2500, 4096  # one pixel of 16, within these
_ROUNDS = 4  # of random starts, while the best leaves more than noise
_TRIED = 4  # candidates of a round that are carried to the end
_GOOD_CHI2 = 1.3  # of held-out pixels: the noise of a sample is known to some 5 %, and light is not quite smooth
_ALIKE, _AGREEING = 1.01, 4  # chi squared of starts that came to the same, and how many must
_CLOSE = 2.0  # times the best's chi squared: a minimum within it is settled too
_SETTLED = 4
_SAME_RAD, _SAME_SIGMAS = 0.1, 3.0  # surfaces closer than either are one
_LOG_ODDS = 25.0  # to the next different surface: an evidence of a model that is not quite true says too much
_WORST_SHARE = 0.2  # of the modulation that may be left over
_UNEVEN = 2.5  # false minima leave 2.8 and more, detail and dust 2.1 and less
_UNEVEN_CHI2 = 1.15  # below this it is the noise that is uneven by chance
_LARGEST_SIGMA_RAD = 0.2
_UNEVEN_LIGHT = 0.15  # of the modulation: false minima have 0.2 and more, stacks of light uneven by 15 % at most 0.1
_OVERFITTED = 1.25  # held-out over fitted chi squared
_TAILS = (0.002, 0.998)


@dataclass(frozen=True)
class FieldFitOptions:
    """``field``: the phase as a Chebyshev series, or as a polynomial with a Scaled-cPIKAN on top; ``seed`` of the random
    starts; ``wavelength``: which of the acquisition's."""

    field: Literal["chebyshev", "cpikan"] = "chebyshev"
    seed: int = 0
    wavelength: int = 0

    def __post_init__(self) -> None:
        if self.field not in FIELDS:
            raise unknown_name("field", self.field, FIELDS)


def fit_frames(
    sample: Subsample, acquisition: Acquisition, saturation_dn: float, options: FieldFitOptions = FieldFitOptions()
) -> FrameFieldFit:
    """Surface, light, steps, tilts and gains of two or more frames of one wavelength, from a subsample of their pixels.

    I_k = g_k (A + B cos(phi + delta_k + t_k . r)) is fitted to raw samples in units of their noise (robust
    Levenberg-Marquardt), phi, A and B being smooth: some hundred unknowns for thousands of samples, where pixel by pixel
    there are three for each. Starts are what closed forms give (Gram-Schmidt for two frames: Vargas et al., Opt. Lett. 37,
    443 (2012)) and random smooth phases. How large the terms of each degree may be follows from the frames (largest
    evidence), and minima are compared by their evidence. The covariance is that of all unknowns together. Given steps are
    held (trusted) or are the centre of a prior of 30 deg (nominal). With unknown ones the sign is open: 0 < step 1 < 180
    deg is assumed. Whether the surface is determined stands in ``verdict`` and ``reason``; nothing is raised for that.
    Raises InputError for fewer than two frames or too few usable pixels.
    """
    at = options.wavelength
    frames, position = _usable(sample, at, saturation_dn)
    noise, sharpness = noise_of_samples(sample.rows.samples[at], frames, 0.0 if np.isinf(saturation_dn) else 1.0)
    low, high = position.min(axis=0), position.max(axis=0)
    points = (2 * position - low - high) / np.maximum(high - low, 1e-12)
    given = None if acquisition.phase_steps_deg is None else acquisition.phase_steps_deg[at]
    steps = None if given is None else np.radians(np.asarray(given, float) - given[0])
    samples = Samples(points, frames / noise, sharpness, steps, acquisition.steps)
    pixels = _parted(samples, int(np.clip(sample.shape[0] * sample.shape[1] // _SHARE, _LEAST, _MOST)))
    minima, pixels = _settled_minima(pixels, _minima(samples, pixels, position, frames, options.seed), samples)
    best = minima[0]
    rivals = [best.evidence(best.temperature) - o.evidence(best.temperature) for o in minima[1:] if _differ(o, best)]
    alike = sum(one.agreeing for one in minima if not _differ(one, best))
    best = with_more_terms(pixels, best)
    if options.field == "cpikan":
        network = with_network(pixels.fitted, best.grown, best.spreads, options.seed)
        best = replace(best, grown=network, covariance=covariance_of(network, best.temperature))
    box = ((float(low[0]), float(high[0])), (float(low[1]), float(high[1])))
    pivot = (float(position[:, 0].mean()), float(position[:, 1].mean()))
    wavelength = acquisition.wavelengths_nm[at]
    return _judged(best, _Frame(wavelength, box, pivot, noise, acquisition.steps, min(rivals, default=np.inf), alike))


def _usable(sample: Subsample, at: int, saturation_dn: float) -> tuple[np.ndarray, np.ndarray]:
    frames = np.asarray(sample.frames[at], np.float64)
    if len(frames) < 2:
        raise InputError(f"{len(frames)} frame: a fit of the frames needs two or more")
    usable = sample.valid & np.isfinite(frames).all(axis=0) & (frames < saturation_dn).all(axis=0)
    if usable.sum() < _FEWEST_PIXELS:
        raise InputError(
            f"{int(usable.sum())} of {usable.size} sampled pixels are usable: a fit of the frames needs {_FEWEST_PIXELS}; "
            "check exposure and mask"
        )
    return frames[:, usable], np.asarray(sample.position[usable], np.float64)


def _parted(samples: Samples, count: int) -> Pixels:
    """Pixels to fit, evenly among all, and as many others to judge the fit by."""
    total = len(samples.points)
    which = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    others = np.setdiff1d(np.arange(total), which)
    return Pixels(samples.only(which), samples.only(others).some(count) if len(others) else samples.only(others))


def _minima(samples: Samples, pixels: Pixels, position: np.ndarray, frames_dn: np.ndarray, seed: int) -> list[Grown]:
    """What the starts lead to, best first: rounds of random ones until one leaves no more than noise, or several in two
    rounds agree."""
    closed = closed_forms(samples, position, frames_dn)
    tried = closed_candidates(samples, closed)
    found: list[Grown] = []
    for turn in range(_ROUNDS):
        tried += smooth_candidates(samples, closed if turn == 0 else [], seed + turn)[:_TRIED]
        found = sorted([*found, *carried(pixels.fitted, tried)], key=lambda one: one.chi2)
        alike = sum(one.chi2 < _ALIKE * found[0].chi2 for one in found)
        if found and (found[0].chi2 < _GOOD_CHI2 or (turn > 0 and alike >= _AGREEING)):
            break
        tried = []
    return found


def _settled_minima(pixels: Pixels, found: list[Grown], samples: Samples) -> tuple[list[Settled], Pixels]:
    """The best of them with their terms as large as the frames show, by falling evidence, and the pixels in their unit."""
    pixels = pixels.in_unit_of(found[0])
    degrees = replace(DEGREES, bent=bends(pixels, found[0]))
    near: list[list[Grown]] = []
    for one in (_gauged(one, samples) for one in found if one.chi2 <= _CLOSE * found[0].chi2):
        same = [group for group in near if np.std(group[0].phase_rad - one.phase_rad) < _SAME_RAD]
        same[0].append(one) if same else near.append([one])
    settled_ones = [replace(settled(pixels, group[0], degrees), agreeing=len(group)) for group in near[:_SETTLED]]
    settled_ones = [replace(one, grown=_gauged(one.grown, samples)) for one in settled_ones]
    coldest = min(one.temperature for one in settled_ones)
    return sorted(settled_ones, key=lambda one: -one.evidence(coldest)), pixels


def _gauged(one: Grown, samples: Samples) -> Grown:
    """B positive, and the sign of the convention where the steps leave it open."""
    one = with_positive_fringes(one)
    first = float(one.parameters[2 * one.model.layout.light])
    wrong = samples.steps_rad is None and np.sin(first) < 0
    return mirrored(one) if wrong else one


def _differ(one: Settled, other: Settled) -> bool:
    off = float(np.std(one.grown.phase_rad - other.grown.phase_rad))
    return off > max(_SAME_RAD, _SAME_SIGMAS * max(one.sigma_rad, other.sigma_rad))


@dataclass(frozen=True)
class _Frame:
    """What a result needs beside the minimum."""

    wavelength_nm: float
    box: tuple[tuple[float, float], tuple[float, float]]
    pivot: tuple[float, float]
    noise_dn: float
    steps: str
    runner_up: float
    agreeing: int


def _judged(settled_one: Settled, frame: _Frame) -> FrameFieldFit:
    """The result, and whether it is determined."""
    best = settled_one.grown
    layout, phase = best.model.layout, best.phase_rad
    form = best.model.layout.split(best.parameters[None]).form
    slopes = best.model.form.jacobian(form)[1][0].numpy()
    low, high = np.quantile(phase, _TAILS)
    found = FrameFieldFit(
        wavelength_nm=frame.wavelength_nm,
        box=frame.box,
        degrees=best.degrees,
        layout=layout,
        parameters=best.parameters.numpy(),
        covariance=settled_one.covariance,
        centre=slopes.mean(axis=0),
        pivot=frame.pivot,
        noise_dn=frame.noise_dn,
        unit_dn=frame.noise_dn * settled_one.unit,
        chi2=settled_one.chi2,
        held_chi2=settled_one.held_chi2,
        temperature=settled_one.temperature,
        unevenness=settled_one.unevenness,
        agreeing=frame.agreeing,
        sigma_nm_median=0.0,
        fringes=float((high - low) / (2 * np.pi)),
        iterations=best.iterations,
        verdict="converged",
        reason="",
        sign={"trusted": "steps", "nominal": "nominal"}.get(frame.steps, "assumed"),
        start=best.source,
        runner_up=frame.runner_up,
        network=best.model.form if isinstance(best.model.form, NetworkPhase) else None,
    )
    points = best.model.points.numpy()
    position = np.stack(
        [(p * (b[1] - b[0]) + b[0] + b[1]) / 2 for p, b in zip(points.T, frame.box, strict=True)], axis=1
    )
    sigma = float(np.median(found.sigma_nm(position)))
    found = replace(found, sigma_nm_median=sigma)
    uneven = np.std(found.background_dn.at(*position.T)) / max(
        float(np.mean(found.modulation_dn.at(*position.T))), 1e-12
    )
    reasons = _reasons(found)
    verdict: Literal["converged", "not determined"] = "not determined" if reasons else "converged"
    return replace(found, verdict=verdict, reason="; ".join(reasons), warnings=_warnings(found, float(uneven)))


def _reasons(fit: FrameFieldFit) -> list[str]:
    """Why the surface is not determined."""
    reasons = []
    modulation = float(fit.parameters[fit.layout.light]) * fit.unit_dn
    if fit.residual_dn > _WORST_SHARE * modulation + 3 * fit.noise_dn:
        reasons.append(
            f"the fit leaves {fit.residual_dn:.1f} DN of fringes of {modulation:.1f} DN: the surface is not smooth, or no "
            "start led to it"
        )
    elif fit.chi2 > _UNEVEN_CHI2 and fit.unevenness > _UNEVEN:
        reasons.append(
            f"what the fit leaves over ({fit.residual_dn:.1f} DN, noise {fit.noise_dn:.1f} DN) is smooth: a false minimum, or "
            "light that no smooth field follows"
        )
    if fit.held_chi2 > _OVERFITTED * fit.chi2:
        reasons.append(
            f"pixels that were not fitted depart {(fit.held_chi2 / fit.chi2) ** 0.5:.2f} times as far: the frames do not "
            "support so many terms"
        )
    if fit.runner_up < _LOG_ODDS:
        reasons.append(
            f"another surface explains the frames as well (log odds {fit.runner_up:.0f}, {_LOG_ODDS:.0f} are asked for)"
        )
    if fit.sigma_nm_median > _LARGEST_SIGMA_RAD * fit.nm_per_rad:
        reasons.append(
            f"the surface is known to {fit.sigma_nm_median:.0f} nm only: {fit.fringes:.1f} fringes are too few for so "
            "many unknowns"
        )
    return reasons


def _warnings(fit: FrameFieldFit, uneven: float) -> tuple[str, ...]:
    told = [
        f"steps, tilts and a smooth surface were fitted to the frames together, to {fit.residual_dn:.1f} DN; the surface as a "
        f"whole is known to {fit.sigma_nm_median:.2g} nm, an error that neighbouring pixels share"
    ]
    if fit.sign == "assumed":
        told.append("the sign of the height is assumed (0 < step 1 < 180 deg): unknown steps leave it open")
    if uneven > _UNEVEN_LIGHT:
        told.append(
            f"the background varies by {uneven:.0%} of the modulation: if the light is more even than that, this is a false "
            "minimum; compare with another pair of frames, or take more"
        )
    if fit.chi2 > _GOOD_CHI2:
        told.append(
            f"the fit leaves {fit.chi2**0.5:.1f} times the noise of neighbouring pixels: the frames hold detail or light "
            "that is not in the model; sigma is that of what is left over"
        )
    return tuple(told)
