"""Two frames: Gram-Schmidt's step and the smooth background it rests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.calibration.smooth_terms import Box, features_of, smooth_field, terms_by_row
from cpikan.psi.calibration.steps.fringes import unwrap_scattered
from cpikan.psi.calibration.steps.step_fit import StepFit
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.frame_model import FrameModel
from cpikan.psi.model.noise import SIGMA_PER_MAD

_DEGREES = (6, 4, 2)  # of the background: the highest that takes nothing of the fringes
_FRINGES_PER_DEGREE = 2.0
_FEWEST_PIXELS = 1000
_TRUST = 1e4  # samples the background counts as: all but exact, its scatter goes into the phase noise
_CELLS = 4  # along each side, for the scatter of the step
_NEAREST_DEG = 20.0  # to 0 or 180, where two frames are one and its negative
_SHADOW = 0.15  # of the modulation of the bright pixels
_LARGEST_SCATTER = 0.5


def fit_two_frames(frames: np.ndarray, position: np.ndarray, start_deg: tuple[float, ...] | None) -> StepFit:
    """Fit the step of frames (2, P) at ``position`` (P, 2), and background and modulation as smooth fields.

    A smooth field through each frame is its background, as fringes average out over it; what is left of the frames is
    B cos(phi) and B cos(phi + delta), and their correlation is cos(delta) (Gram-Schmidt: Vargas et al., Opt. Lett. 37,
    443 (2012)). That takes several fringes and even light. ``ripple_rad`` holds what background and modulation scatter.
    Raises InputError where too few pixels are lit.
    """
    values, where = np.asarray(frames, np.float64), np.asarray(position, np.float64)
    if values.shape[1] < _FEWEST_PIXELS:
        raise InputError(f"{values.shape[1]} usable pixels: two frames need {_FEWEST_PIXELS}; check the mask")
    split = _smooth_light(values, where)
    modulation = np.hypot(split.u, split.v)
    smooth = split.basis @ np.linalg.lstsq(split.basis, modulation, rcond=None)[0]
    lit = smooth > _SHADOW * np.quantile(modulation, 0.9)
    scatter = (
        SIGMA_PER_MAD * float(np.median(np.abs(modulation / np.maximum(smooth, 1e-12) - 1)[lit]))
        if lit.any()
        else np.inf
    )
    mirrored = start_deg is not None and np.sin(np.radians(start_deg[1] - start_deg[0])) < 0
    reasons = _reasons(split, scatter)
    return StepFit(
        model=_model(split, where, 2 * np.pi - split.step_rad if mirrored else split.step_rad),
        step_error_rad=np.array([0.0, _scatter_of_step(values, split, where)]),
        tilt_error_rad_px=np.zeros((2, 2)),
        gain_error=np.zeros(2),
        noise_dn=float("nan"),
        background_dn=scatter * float(np.median(smooth)),
        modulation_dn=scatter * float(np.median(smooth)),
        ripple_rad=float(np.sqrt(2)) * scatter,
        omitted={"tilt": "two frames do not show it"},
        conditioning=float(np.tan(min(split.step_rad, np.pi - split.step_rad) / 2)),
        fringes=split.fringes,
        iterations=1,
        determined=not reasons,
        reason="; ".join(reasons),
        sign="assumed" if start_deg is None else "nominal",
        warnings=(
            Caution(
                "steps-few-frames",
                "two frames: phases rest on a background and modulation that do not follow the fringes",
            ),
        ),
    )


@dataclass(frozen=True)
class _Split:
    """Two frames taken apart: ``coefficients`` of the background on the ``basis`` (P, terms) of ``powers`` over ``box``,
    ``u`` and ``v`` (P,), the step in (0, pi) and the fringes, a lower bound where not ``resolved``."""

    box: Box
    powers: np.ndarray
    basis: np.ndarray
    coefficients: np.ndarray
    u: np.ndarray
    v: np.ndarray
    step_rad: float
    fringes: float
    resolved: bool


def _smooth_light(values: np.ndarray, where: np.ndarray) -> _Split:
    """Split the frames with the background of the highest degree that cannot follow the fringes."""
    (low_y, low_x), (high_y, high_x) = where.min(axis=0), where.max(axis=0)
    box = ((float(low_y), float(high_y)), (float(low_x), float(high_x)))
    points = np.stack(
        [(2 * c - low - high) / max(high - low, 1e-12) for c, (low, high) in zip(where.T, box, strict=True)], axis=1
    )
    for degree in _DEGREES:
        powers = terms_by_row(degree)
        basis = np.ascontiguousarray(features_of(points, powers))
        coefficients, u, v, step = _split(values, basis)
        fringes = unwrap_scattered(np.arctan2(v, u), where)
        found = _Split(box, powers, basis, coefficients, u, v, step, fringes.fringes, fringes.resolved)
        if fringes.fringes >= _FRINGES_PER_DEGREE * degree or not fringes.resolved:
            break
    return found


def _model(split: _Split, where: np.ndarray, step_rad: float) -> FrameModel:
    zeros = np.zeros(2)
    pivot = (float(where[:, 0].mean()), float(where[:, 1].mean()))
    field = smooth_field(split.box, split.powers, split.coefficients)
    steps = np.array([0.0, step_rad])
    return FrameModel(
        steps, np.zeros((2, 2)), zeros, np.ones(2), zeros, pivot, background=field, background_weight=_TRUST
    )


def _reasons(split: _Split, scatter: float) -> list[str]:
    """List why two frames do not serve; empty if they do."""
    degrees, reasons = float(np.degrees(split.step_rad)), []
    if split.resolved and split.fringes < _FRINGES_PER_DEGREE * _DEGREES[-1]:
        reasons.append(
            f"the field holds {split.fringes:.1f} fringes, two frames need 4: tilt the part, or take three frames"
        )
    if min(degrees, 180 - degrees) < _NEAREST_DEG:
        reasons.append(f"the step is {degrees:.0f} deg, too near to 0 or 180 for two frames to be told apart")
    if not scatter < _LARGEST_SCATTER:
        reasons.append(
            f"the modulation scatters by {scatter:.0%} about a smooth field: light too uneven for two frames"
        )
    return reasons


def _split(values: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Solve for coefficients of the background, B cos phi and B sin phi, and the step in (0, pi)."""
    coefficients = np.linalg.lstsq(basis, values.T, rcond=None)[0]
    first, second = values - (basis @ coefficients).T
    power = np.sqrt((first @ first) * (second @ second))
    cosine = float(np.clip(first @ second / max(power, 1e-30), -0.9999, 0.9999))
    step = float(np.arccos(cosine))
    background = coefficients.mean(axis=1)
    u = values[0] - basis @ background
    later = values[1] - basis @ background
    return background, u, (u * cosine - later) / np.sin(step), step


def _scatter_of_step(values: np.ndarray, split: _Split, where: np.ndarray) -> float:
    """Estimate the standard error of the step in rad from its scatter over parts of the field."""
    coefficients = np.linalg.lstsq(split.basis, values.T, rcond=None)[0]
    first, second = values - (split.basis @ coefficients).T
    cell = np.zeros(len(where), np.intp)
    for column, (low, high) in zip(where.T, split.box, strict=True):
        part = np.minimum((_CELLS * (column - low) / max(high - low, 1e-12)).astype(np.intp), _CELLS - 1)
        cell = cell * _CELLS + part
    cross, powers = np.bincount(cell, first * second), np.bincount(cell, (first**2 + second**2) / 2)
    used = powers > 0.1 * powers.max()
    cosine = np.clip(cross[used] / powers[used], -1, 1)
    return float(np.arccos(cosine).std(ddof=1) / np.sqrt(used.sum())) if used.sum() > 1 else np.pi
