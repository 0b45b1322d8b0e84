"""A surface fitted to raw frames: its phase and sigma, the frames' steps and tilts, the light, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from cpikan.psi.calibration.smooth_terms import Box, features, smooth_field, terms
from cpikan.psi.calibration.steps.stack_steps import Sign, StackSteps
from cpikan.psi.calibration.steps.step_fit import StepFit
from cpikan.psi.calibration.surface_fit.frame_residuals import FrameLayout, FrameParts, LinearPhase, NetworkPhase
from cpikan.psi.calibration.surface_fit.problem import Degrees
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.frame_model import FrameModel, SmoothField

Verdict = Literal["converged", "not determined"]
BACKGROUND_TRUST = 1e4  # samples that the fitted background counts as where pixels rest on it
_POOR = 12.0  # condition from which frames leave a pixel's background to the fit: ideal steps have 1.4
_PROBES = 9


@dataclass(frozen=True)
class SurfaceFit:
    """Everything the frames were made of. Positions are pixels (y, x); phases and heights are of frame 0.

    ``parameters`` (P,) and ``covariance`` (P, P) lie as in ``layout``, samples in units of ``unit_dn``; ``box`` is what
    [-1, 1] stands for; ``noise_dn`` the noise of a sample of medium light, ``chi2`` the mean square of what is left over in
    that unit, ``held_chi2`` that of pixels which were not fitted; ``residual_dn`` the root of ``chi2`` in DN.
    ``temperature`` is by what the covariance is larger than that of independent samples with the noise of ``unit_dn``,
    ``unevenness`` the power of what is left over at large scales over that at small ones. ``verdict`` and ``reason`` say
    whether the surface is determined, ``sign`` where its sign comes from ("steps", "nominal", "assumed"), ``start`` what the
    fit began from, ``agreeing`` how many starts led to the same surface, ``runner_up`` the logarithm of the odds against
    the next different one (infinite: none was found). ``network`` is the phase of a network, None where it is a series.
    """

    wavelength_nm: float
    box: Box
    degrees: Degrees
    layout: FrameLayout
    parameters: np.ndarray
    covariance: np.ndarray
    centre: np.ndarray
    pivot: tuple[float, float]
    noise_dn: float
    unit_dn: float
    chi2: float
    held_chi2: float
    temperature: float
    unevenness: float
    agreeing: int
    fringes: float
    iterations: int
    sign: str
    start: str
    runner_up: float
    network: NetworkPhase | None = None
    sigma_nm_median: float = float("nan")
    verdict: Verdict = "not determined"
    reason: str = ""
    warnings: tuple[Caution, ...] = field(default=())

    @property
    def determined(self) -> bool:
        return self.verdict == "converged"

    @property
    def nm_per_rad(self) -> float:
        return self.wavelength_nm / (4 * np.pi)

    @property
    def residual_dn(self) -> float:
        return float(np.sqrt(self.chi2) * self.noise_dn)

    @property
    def background_dn(self) -> SmoothField:
        """Give the background A of frame 0, in DN."""
        return self._light(0)

    @property
    def modulation_dn(self) -> SmoothField:
        """Give the modulation B of frame 0, in DN."""
        return self._light(1)

    def phase_rad(self, position: np.ndarray) -> np.ndarray:
        """Evaluate the unwrapped phase (P,) in rad at pixels (P, 2)."""
        form = self._parts().form[None]
        return np.asarray(self._form(position).value(form)[0].numpy())

    def height_nm(self, position: np.ndarray) -> np.ndarray:
        """Evaluate the surface (P,) in nm at pixels (P, 2), up to a piston."""
        return self.phase_rad(position) * self.nm_per_rad

    def sigma_nm(self, position: np.ndarray) -> np.ndarray:
        """Compute the standard uncertainty (P,) in nm of the surface about its mean over the samples."""
        return self._scatter_rad(position) * self.nm_per_rad

    def frame_model(self) -> FrameModel:
        """Convert steps, tilts and gains to a `FrameModel`; with the background where frames are too few to find it."""
        parts = self._parts()
        frames = self.layout.frames
        delta, tilt, gain = np.zeros(frames), np.zeros((frames, 2)), np.ones(frames)
        delta[1:], gain[1:] = parts.steps.numpy(), 1 + parts.gains.numpy()
        tilt[1:] = parts.tilts.numpy() / self._unit
        locked = ((2, float(parts.second)),) if self.layout.has_second_harmonic else ()
        delta += tilt @ (np.asarray(self.pivot) - self._middle)
        plain = FrameModel(
            delta % (2 * np.pi), tilt, np.zeros(frames), gain, np.zeros(frames), self.pivot, locked=locked
        )
        probes = np.meshgrid(*(np.linspace(low, high, _PROBES) for low, high in self.box), indexing="ij")
        if frames > 2 and float(np.linalg.cond(plain.design_at(*probes)).max()) < _POOR:
            return plain
        return replace(plain, background=self.background_dn, background_weight=BACKGROUND_TRUST)

    def step_fit(self) -> StepFit:
        """Convert the fit to a `StepFit`, for what follows in the calibration."""
        frames, spread = self.layout.frames, np.sqrt(np.diag(self.covariance))
        at = self.layout.blocks
        step, tilt, gain = np.zeros(frames), np.zeros((frames, 2)), np.zeros(frames)
        model = self.frame_model()
        offset = (np.asarray(self.pivot) - self._middle) / self._unit
        for k in range(1, frames):
            place, weight = [at["step"][k - 1]], np.ones(1)
            if self.layout.fit_tilt:
                place, weight = [*place, *at["tilt"][k - 1]], np.array([1.0, *offset])
                tilt[k] = spread[place[1:]] / self._unit
            step[k] = np.sqrt(max(weight @ self.covariance[np.ix_(place, place)] @ weight, 0.0))
        if self.layout.fit_gain:
            gain[1:] = spread[at["gain"]]
        modulation = float(self._parts().power[0]) * self.unit_dn
        return StepFit(
            model=model,
            step_error_rad=step,
            tilt_error_rad_px=tilt,
            gain_error=gain,
            harmonic_ratio={2: float(self._parts().second)} if self.layout.has_second_harmonic else {},
            residual_dn=self.residual_dn,
            noise_dn=self.noise_dn,
            background_dn=0.0,
            modulation_dn=0.0,
            ripple_rad=self.misfit_rad if modulation > 0 else 0.0,
            effects=(
                *(("tilt",) if self.layout.fit_tilt else ()),
                *(("gain",) if self.layout.fit_gain else ()),
                *(("harmonic2",) if self.layout.has_second_harmonic else ()),
            ),
            conditioning=_conditioning(model),
            fringes=self.fringes,
            iterations=self.iterations,
            determined=self.determined,
            reason=self.reason,
            sign=self.sign,
            warnings=self.warnings,
        )

    def stack_steps(self) -> StackSteps:
        """Convert the fit to the `StackSteps` that the calibration takes."""
        sign: Sign = "given" if self.sign == "steps" else "nominal" if self.sign == "nominal" else "assumed"
        return StackSteps((self.frame_model(),), sign, (self.step_fit(),), warnings=self.warnings)

    @property
    def misfit_rad(self) -> float:
        """Convert the residual beyond the noise to a phase in rad."""
        modulation = float(self._parts().power[0]) * self.unit_dn
        return float(np.sqrt(max(self.chi2 - 1.0, 0.0)) * self.noise_dn / max(modulation, 1e-12))

    def summary(self) -> dict[str, Any]:
        """Summarise the fit, JSON-able."""
        model = self.frame_model()
        return {
            "steps_by": "frames fit",
            "verdict": self.verdict,
            "reason": self.reason,
            "sign": self.sign,
            "start": self.start,
            "field": "chebyshev" if self.network is None else "cpikan",
            "phase_parameters": self.layout.form,
            "light_degree": self.degrees.light,
            "chi2": self.chi2,
            "held_out_chi2": self.held_chi2,
            "temperature": self.temperature,
            "starts_agreeing": self.agreeing,
            "residual_dn": self.residual_dn,
            "noise_dn": self.noise_dn,
            "sigma_nm_median": self.sigma_nm_median,
            "fringes": self.fringes,
            "runner_up_log_odds": self.runner_up if np.isfinite(self.runner_up) else None,
            "phase_steps_deg": np.degrees(model.steps_rad).tolist(),
            "tilt_rad_px": model.tilt_rad_px.tolist(),
            "gain": model.gain.tolist(),
            "second_harmonic": float(self._parts().second) if self.layout.has_second_harmonic else 0.0,
        }

    @property
    def _unit(self) -> np.ndarray:
        return np.array([(high - low) / 2 for low, high in self.box])

    @property
    def _middle(self) -> np.ndarray:
        return np.array([(high + low) / 2 for low, high in self.box])

    def _parts(self) -> FrameParts:
        return self.layout.split(torch.from_numpy(self.parameters))

    def _points(self, position: np.ndarray) -> np.ndarray:
        return np.asarray((np.asarray(position, float) - self._middle) / self._unit)

    def _form(self, position: np.ndarray) -> LinearPhase | NetworkPhase:
        points = self._points(position)
        if self.network is None:
            return LinearPhase(torch.from_numpy(features(points, self.degrees.form)))
        return self.network.at(torch.from_numpy(points))

    def _scatter_rad(self, position: np.ndarray) -> np.ndarray:
        form = self._parts().form[None]
        slopes = self._form(position).jacobian(form)[1][0].numpy() - self.centre
        first = self.layout.blocks["phase"][0]
        return np.sqrt(np.maximum(((slopes @ self.covariance[first:, first:]) * slopes).sum(axis=1), 0.0))

    def _light(self, which: int) -> SmoothField:
        return smooth_field(self.box, terms(self.degrees.light), self._parts()[which].numpy() * self.unit_dn)


def _conditioning(model: FrameModel) -> float:
    """Divide the smallest by the largest singular value of a pixel's design at the pivot, with any known background."""
    design = model.design_at(*np.array(model.pivot))
    if model.background is not None:
        design = np.vstack([design, [1.0, 0.0, 0.0]])
    values = np.linalg.svd(design, compute_uv=False)
    return float(values[-1] / values[0])
