"""Few or bad frames: the fit of a smooth surface, smooth light, steps, tilts and gains to the raw samples together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.psi.calibration.calibrate import Subsample
from cpikan.psi.calibration.surface_fit.descent import with_network
from cpikan.psi.calibration.surface_fit.frame_residuals import NetworkPhase
from cpikan.psi.calibration.surface_fit.noise import noise_of_samples
from cpikan.psi.calibration.surface_fit.problem import Samples
from cpikan.psi.calibration.surface_fit.regularise import covariance_of, with_more_terms
from cpikan.psi.calibration.surface_fit.result import SurfaceFit
from cpikan.psi.calibration.surface_fit.search import MinimumSearch, RawFrames, find_minima, part_pixels, rank_minima
from cpikan.psi.calibration.surface_fit.thresholds import Thresholds
from cpikan.psi.calibration.surface_fit.verdict import judged
from cpikan.psi.model.acquisition import Acquisition

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
        if self.field not in FIELDS:
            raise unknown_name("field", self.field, FIELDS)


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
