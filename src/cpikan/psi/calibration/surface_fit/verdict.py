"""The verdict on a fitted surface: whether the frames determine it, and what else a user must know."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cpikan.psi.calibration.surface_fit.result import SurfaceFit
from cpikan.psi.model.caution import Caution


@dataclass(frozen=True)
class Thresholds:
    """Effort of the search and limits of what counts as determined; the benchmarks of the fit confirm the defaults."""

    # the pixels of the fit
    fewest_pixels: int = 500
    pixel_share: int = 16  # one pixel of the image in so many, within the next two
    least_pixels: int = 2500
    most_pixels: int = 4096
    # starts and minima
    rounds: int = 4  # of random starts, while the best leaves more than noise
    starts_per_round: int = 4  # that are followed to the end
    good_chi2: float = (
        1.3  # of held-out pixels: the noise of a sample is known to some 5 %, and light is not quite smooth
    )
    alike_chi2: float = 1.01  # ratio of chi squared of starts that came to the same
    agreeing: int = 4  # how many must
    close_chi2: float = 2.0  # times the best's chi squared: a minimum within it is refined too
    most_minima: int = 4  # that are refined
    same_rad: float = 0.1  # surfaces closer than this, or than the next, are one
    same_sigmas: float = 3.0
    # the verdict
    log_odds: float = 25.0  # to the next different surface: an evidence of a model that is not quite true says too much
    worst_share: float = 0.2  # of the modulation that may be left over
    unevenness: float = 2.5  # false minima leave 2.8 and more, detail and dust 2.1 and less
    uneven_chi2: float = 1.15  # below this it is the noise that is uneven by chance
    largest_sigma_rad: float = 0.2
    uneven_light: float = 0.15  # of the modulation: false minima have 0.2 and more, light uneven by 15 % at most 0.1
    overfitted: float = 1.25  # held-out over fitted chi squared


def judged(fit: SurfaceFit, points: np.ndarray, limits: Thresholds) -> SurfaceFit:
    """Judge the fit: verdict, reason, warnings and median sigma, from what it says at ``points`` (P, 2) in [-1, 1]."""
    position = np.stack(
        [(p * (high - low) + low + high) / 2 for p, (low, high) in zip(points.T, fit.box, strict=True)], axis=1
    )
    fit = replace(fit, sigma_nm_median=float(np.median(fit.sigma_nm(position))))
    modulation = max(float(np.mean(fit.modulation_dn.at(*position.T))), 1e-12)
    uneven = float(np.std(fit.background_dn.at(*position.T)) / modulation)
    reasons = _reasons(fit, limits)
    return replace(
        fit,
        verdict="not determined" if reasons else "converged",
        reason="; ".join(reasons),
        warnings=_warnings(fit, uneven, limits),
    )


def _reasons(fit: SurfaceFit, limits: Thresholds) -> list[str]:
    """List why the surface is not determined; empty if it is."""
    reasons = []
    modulation = float(fit.parameters[fit.layout.blocks["modulation"][0]]) * fit.unit_dn
    if fit.residual_dn > limits.worst_share * modulation + 3 * fit.noise_dn:
        reasons.append(
            f"the fit leaves {fit.residual_dn:.1f} DN of fringes of {modulation:.1f} DN: the surface is not smooth, or no "
            "start led to it"
        )
    elif fit.chi2 > limits.uneven_chi2 and fit.unevenness > limits.unevenness:
        reasons.append(
            f"what the fit leaves over ({fit.residual_dn:.1f} DN, noise {fit.noise_dn:.1f} DN) is smooth: a false minimum, or "
            "light that no smooth field follows"
        )
    if fit.held_chi2 > limits.overfitted * fit.chi2:
        reasons.append(
            f"pixels that were not fitted depart {(fit.held_chi2 / fit.chi2) ** 0.5:.2f} times as far: the frames do not "
            "support so many terms"
        )
    if fit.runner_up < limits.log_odds:
        reasons.append(
            f"another surface explains the frames as well (log odds {fit.runner_up:.0f}, {limits.log_odds:.0f} are asked for)"
        )
    if fit.sigma_nm_median > limits.largest_sigma_rad * fit.nm_per_rad:
        reasons.append(
            f"the surface is known to {fit.sigma_nm_median:.0f} nm only: {fit.fringes:.1f} fringes are too few for so "
            "many unknowns"
        )
    return reasons


def _warnings(fit: SurfaceFit, uneven: float, limits: Thresholds) -> tuple[Caution, ...]:
    left, sigma = f"{fit.residual_dn:.1f} DN", f"{fit.sigma_nm_median:.2g} nm"
    told = {
        "surface-fitted": f"steps, tilts and a smooth surface were fitted to the frames together, to {left}; the surface as a "
        f"whole is known to {sigma}, an error that neighbouring pixels share"
    }
    if fit.sign == "assumed":
        told["sign-assumed"] = "the sign of the height is assumed (0 < step 1 < 180 deg): unknown steps leave it open"
    if uneven > limits.uneven_light:
        told["light-uneven"] = (
            f"the background varies by {uneven:.0%} of the modulation: if the light is more even than that, this is a false "
            "minimum; compare with another pair of frames, or take more"
        )
    if fit.chi2 > limits.good_chi2:
        told["fit-leaves-detail"] = (
            f"the fit leaves {fit.chi2**0.5:.1f} times the noise of neighbouring pixels: the frames hold detail or light "
            "that is not in the model; sigma is that of what is left over"
        )
    return tuple(Caution(name, text) for name, text in told.items())
