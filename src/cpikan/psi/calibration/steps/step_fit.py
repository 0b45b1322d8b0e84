"""The result of a fit of the frames, and the phase under it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cpikan.psi.calibration.steps.layout import Effect
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.frame_model import FrameModel


@dataclass(frozen=True)
class StepFit:
    """The frames' model and how far to trust it.

    ``step_error_rad`` (K,), ``tilt_error_rad_px`` (K, 2) and ``gain_error`` (K,) are predicted standard errors, zero for frame
    0 and for what was not fitted. ``harmonic_ratio`` maps fitted orders to their share of the modulation: ``model.harmonics``
    lists only those that may be left free in every pixel. ``residual_dn`` is the median over pixels of sqrt(RSS / (K - p)),
    p the columns of the model (nan where none is left), ``residual_over_three_dn`` that of sqrt(RSS / (K - 3));
    ``noise_dn``, ``background_dn`` and ``modulation_dn`` are the scatter of samples, and of A and B about smooth fields.
    ``ripple_rad`` is the predicted amplitude of the phase error at twice the fringes. ``omitted`` says why each effect that
    was considered is not in the model.
    """

    model: FrameModel
    step_error_rad: np.ndarray
    tilt_error_rad_px: np.ndarray
    gain_error: np.ndarray
    noise_dn: float
    background_dn: float
    modulation_dn: float
    ripple_rad: float
    conditioning: float
    fringes: float
    iterations: int
    sign: str
    harmonic_ratio: dict[int, float] = field(default_factory=dict)
    residual_dn: float = float("nan")
    residual_over_three_dn: float = float("nan")
    effects: tuple[Effect, ...] = ()
    omitted: dict[str, str] = field(default_factory=dict)
    converged: bool = True
    determined: bool = True
    reason: str = ""
    warnings: tuple[Caution, ...] = ()

    @property
    def circle_coverage(self) -> float:
        """Compute the share of the circle outside the widest gap of the steps."""
        steps = np.sort(self.model.steps_rad % (2 * np.pi))
        gaps = np.diff(steps, append=steps[0] + 2 * np.pi)
        return float(1 - gaps.max() / (2 * np.pi))

    @property
    def steps_deg(self) -> tuple[float, ...]:
        return tuple(float(step) for step in np.degrees(self.model.steps_rad))

    def phase_rad(self, frames: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Compute the phase (P,) of frames (K, P) at ``position`` (P, 2); free harmonics stay, others are taken off."""
        _, u, v = demodulated(self, np.asarray(frames, np.float64), np.asarray(position, float))[0][:3]
        return np.arctan2(v, u)


def demodulated(fit: StepFit, values: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve for coefficients (columns, P) and residual squares (P,) of light, without harmonics that are not free."""
    found, rest = resolved(fit, values, where)
    return found, (rest**2).sum(axis=1)


def sample_squares(fit: StepFit, values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Compute the residual squares (P,) in DN^2 of the samples themselves, bent as they are."""
    _, rest = resolved(fit, values, where)
    response = fit.model.response
    return ((rest if response is None else rest / response.slope(values).T) ** 2).sum(axis=1)


def resolved(fit: StepFit, values: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve for coefficients (columns, P) of light, and what is left of each sample (P, K), in DN of light."""
    model = fit.model
    design = model.design_at(where[:, 0], where[:, 1])
    samples = model.light_dn(values) - model.offset_dn[:, None]
    normal = design.transpose(0, 2, 1) @ design
    right = design.transpose(0, 2, 1) @ samples.T[..., None]
    if model.background is not None:
        normal[:, 0, 0] += model.background_weight
        right[:, 0, 0] += model.background_weight * model.background.at(where[:, 0], where[:, 1])
    normal += 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(normal.shape[-1])
    inverse = np.linalg.inv(normal)
    found = (inverse @ right)[..., 0]
    if not model.locked:
        return found.T, samples.T - (design @ found[..., None])[..., 0]
    phasor = model.unlocked(found[:, 1] + 1j * found[:, 2], where[:, 0], where[:, 1])
    delta = model.steps_at(where[:, 0], where[:, 1])
    light = sum(share * np.cos(order * (np.angle(phasor) + delta)) for order, share in model.locked)
    taken = (model.gain * model.fringe_contrast)[:, None] * np.abs(phasor) * light
    found = (inverse @ (right - design.transpose(0, 2, 1) @ taken.T[..., None]))[..., 0]
    return found.T, (samples - taken).T - (design @ found[..., None])[..., 0]
