"""The verdict on a fitted surface: whether the frames determine it, and what else a user must know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cpikan.psi.calibration.surface_fit.result import SurfaceFit
from cpikan.psi.calibration.surface_fit.thresholds import Thresholds
from cpikan.psi.model.caution import Caution


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
