"""Few or bad frames: the fit of a smooth surface, smooth light, steps, tilts and gains to the raw samples together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.physics.frame_residuals import NetworkPhase
from cpikan.psi.acquisition import Acquisition
from cpikan.psi.calibrate import Subsample
from cpikan.psi.field_fit.grow import Grown, carried, finished, mirrored, with_network, with_positive_fringes
from cpikan.psi.field_fit.problem import Samples
from cpikan.psi.field_fit.result import FrameFieldFit
from cpikan.psi.field_fit.starts import closed_candidates, closed_forms, smooth_candidates
from cpikan.psi.noise import noise_from_neighbours

FIELDS = ("chebyshev", "cpikan")
_FEWEST_PIXELS = 500
_SHARE, _LEAST, _MOST = 16, 2500, 4096  # one pixel of 16, within these
_ROUNDS = 4  # of random starts, while the best leaves more than noise
_TRIED = 3  # candidates of a round that are carried to the end
_GOOD_CHI2 = 2.0  # the noise of neighbours is good to some 20 %
_BETTER = 0.99  # of the chi squared before: a round that finds no more is the last
_SAME_RAD = 0.3  # surfaces closer than this are one
_ALIKE = 1.03  # a different surface whose chi squared is within this factor leaves the choice open
_WORST_SHARE = 0.2  # of the modulation that may be left over
_LARGEST_SIGMA_RAD = 0.25
_SMOOTH_DEGREE = 16  # of the phase: a false minimum bends it further
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

    I_k = g_k (A + B cos(phi + delta_k + t_k . r)) is fitted to raw samples in units of their noise (Levenberg-Marquardt,
    robust at the end), phi, A and B being smooth: some hundred unknowns for thousands of samples, where pixel by pixel
    there are three for each. Starts are what closed forms give (Gram-Schmidt for two frames: Vargas et al., Opt. Lett. 37,
    443 (2012)) and random smooth phases; terms are added while the frames show more. Given steps are held (trusted) or
    are the centre of a prior of 30 deg (nominal). With unknown ones the sign is open: 0 < step 1 < 180 deg is
    assumed. Whether the surface is determined stands in ``verdict`` and ``reason``; nothing is raised for that. Raises
    InputError for fewer than two frames or too few usable pixels.
    """
    at = options.wavelength
    frames, position = _usable(sample, at, saturation_dn)
    quantum = 0.0 if np.isinf(saturation_dn) else 1.0
    noise = float(np.sqrt(max(noise_from_neighbours(sample.rows.samples[at], quantum).read_dn2, 1e-12)))
    noise = max(noise, 1e-4 * float(frames.std()))  # frames without any noise: rounding is far below this
    low, high = position.min(axis=0), position.max(axis=0)
    points = (2 * position - low - high) / np.maximum(high - low, 1e-12)
    given = None if acquisition.phase_steps_deg is None else acquisition.phase_steps_deg[at]
    steps = None if given is None else np.radians(np.asarray(given, float) - given[0])
    samples = Samples(points, frames / noise, steps, acquisition.steps)
    fewer = samples.some(int(np.clip(sample.shape[0] * sample.shape[1] // _SHARE, _LEAST, _MOST)))
    minima = _minima(samples, fewer, position, frames, options.seed)
    best = minima[0]
    factor = min((one.chi2 / best.chi2 for one in minima[1:] if _differ(one, best)), default=np.inf)
    best = _gauged(finished(fewer, best), samples)
    if options.field == "cpikan":
        best = with_network(fewer, best, options.seed)
    box = ((float(low[0]), float(high[0])), (float(low[1]), float(high[1])))
    pivot = (float(position[:, 0].mean()), float(position[:, 1].mean()))
    return _judged(best, _Frame(acquisition.wavelengths_nm[at], box, pivot, noise, acquisition.steps, factor))


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


def _minima(samples: Samples, fewer: Samples, position: np.ndarray, frames_dn: np.ndarray, seed: int) -> list[Grown]:
    """What the starts lead to, best first."""
    closed = closed_forms(samples, position, frames_dn)
    tried = closed_candidates(samples, closed)
    found: list[Grown] = []
    for turn in range(_ROUNDS):
        tried += smooth_candidates(samples, closed if turn == 0 else [], seed + turn)[:_TRIED]
        before = found[0].chi2 if found else np.inf
        found = sorted([*found, *carried(fewer, tried)], key=lambda one: one.chi2)
        if found and (found[0].chi2 < _GOOD_CHI2 or found[0].chi2 > _BETTER * before):
            break
        tried = []
    return [_gauged(one, samples) for one in found]


def _gauged(one: Grown, samples: Samples) -> Grown:
    """B positive, and the sign of the convention where the steps leave it open."""
    one = with_positive_fringes(one)
    first = float(one.parameters[2 * one.model.layout.light])
    wrong = samples.steps_rad is None and np.sin(first) < 0
    return mirrored(one) if wrong else one


def _differ(one: Grown, other: Grown) -> bool:
    off = one.phase_rad - other.phase_rad
    return bool(np.std(off) > _SAME_RAD)


@dataclass(frozen=True)
class _Frame:
    """What a result needs beside the minimum."""

    wavelength_nm: float
    box: tuple[tuple[float, float], tuple[float, float]]
    pivot: tuple[float, float]
    noise_dn: float
    steps: str
    runner_up: float


def _judged(best: Grown, frame: _Frame) -> FrameFieldFit:
    """The result, and whether it is determined."""
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
        covariance=best.covariance(),
        centre=slopes.mean(axis=0),
        pivot=frame.pivot,
        noise_dn=frame.noise_dn,
        chi2=best.chi2,
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
    reasons = _reasons(found)
    verdict: Literal["converged", "not determined"] = "not determined" if reasons else "converged"
    return replace(found, verdict=verdict, reason="; ".join(reasons), warnings=_warnings(found))


def _reasons(fit: FrameFieldFit) -> list[str]:
    """Why the surface is not determined."""
    reasons = []
    modulation = float(fit.parameters[fit.layout.light]) * fit.noise_dn
    if fit.residual_dn > _WORST_SHARE * modulation + 3 * fit.noise_dn:
        reasons.append(
            f"the fit leaves {fit.residual_dn:.1f} DN of fringes of {modulation:.1f} DN: the surface is not smooth, or no "
            "start led to it"
        )
    if fit.runner_up < _ALIKE:
        reasons.append(f"another surface fits the frames as well (chi squared {fit.runner_up:.2f} times as large)")
    if fit.sigma_nm_median > _LARGEST_SIGMA_RAD * fit.nm_per_rad:
        reasons.append(
            f"the surface is known to {fit.sigma_nm_median:.0f} nm only: {fit.fringes:.1f} fringes are too few for so "
            "many unknowns"
        )
    return reasons


def _warnings(fit: FrameFieldFit) -> tuple[str, ...]:
    told = [f"steps, tilts and a smooth surface were fitted to the frames together, to {fit.residual_dn:.1f} DN"]
    if fit.sign == "assumed":
        told.append("the sign of the height is assumed (0 < step 1 < 180 deg): unknown steps leave it open")
    if fit.chi2 > _GOOD_CHI2:
        told.append(
            f"the fit leaves {fit.chi2**0.5:.1f} times the noise: details of the surface or of the light beyond it, or a "
            "false minimum"
        )
    if fit.network is None and fit.degrees.form > _SMOOTH_DEGREE:
        told.append(
            f"the surface took {fit.layout.form} terms: it is not as smooth as the fit expects, or this is a false minimum; "
            "compare with another pair of frames, or take more"
        )
    return tuple(told)
