"""Fringes that print through into the phases: measured under plain steps and under the model, and what is left of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.calibration.steps.fringes import Ripple, ripple_before_and_after
from cpikan.psi.calibration.steps.stack_steps import StackSteps
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.frame_model import FrameModel

_MULTIPLES = (2, 3, 4)  # of the fringe: what bent fringes leave; once the fringe is also light that differs
_TOLD_MRAD = 15.0  # a four-hundredth of a fringe
_BEYOND = 3.0  # times what is found between the multiples, where nothing is but the surface


@dataclass(frozen=True)
class RippleLeft:
    """The variance (L,) of the phase by ripple that a model of the frames leaves, and what to say of it."""

    variance_rad2: np.ndarray
    warnings: tuple[Caution, ...] = ()


def ripple_of(
    frames: np.ndarray, position: np.ndarray, phase: np.ndarray, steps: StackSteps, acquisition: Acquisition
) -> tuple[Ripple | None, ...]:
    """Measure the ripple in phases (L, P) of frames (L, K, P) under plain and fitted steps; None where none were fitted."""
    found: list[Ripple | None] = []
    for i, samples in enumerate(frames):
        if steps.fits is None or len(samples) < 3:  # there are no plain steps to compare with
            found.append(None)
            continue
        given = None if acquisition.phase_steps_deg is None else acquisition.phase_steps_deg[i]
        plain = FrameModel.plain(steps.steps_deg[i] if given is None else tuple(s - given[0] for s in given))
        _, u, v = plain.weights_at(np.zeros(()), np.zeros(())) @ samples.astype(np.float64)
        found.append(ripple_before_and_after(np.arctan2(v, u), phase[i], position))
    return tuple(found)


def ripple_left(ripple: tuple[Ripple | None, ...], steps: StackSteps) -> RippleLeft:
    """Count ripple that the model of a bent camera leaves as phase noise, and say so.

    Harmonics of a fixed share of the fringe, and steps of a quarter turn, which take higher harmonics for the first, leave no
    residual in the frames: the phases show it, at multiples of the fringe and not between them.
    """
    variance, told = np.zeros(len(ripple)), list[Caution]()
    for i, one in enumerate(ripple):
        fit = None if steps.fits is None else steps.fits[i]
        if one is None or fit is None or not (fit.harmonic_ratio or fit.model.response is not None):
            continue
        worst = max(_MULTIPLES, key=lambda k: one.after_mrad[k])
        if one.after_mrad[worst] < max(_TOLD_MRAD, _BEYOND * one.between_mrad):
            continue
        variance[i] = sum((one.after_mrad[k] / 1e3) ** 2 / 2 for k in _MULTIPLES)
        text = (
            f"the camera is bent more than the model of the frames: a phase ripple of {one.after_mrad[worst]:.0f} mrad at "
            f"{worst} times the fringes is left, which sigma counts as noise; take less light, or six frames and more, of "
            "which a response curve can be fitted"
        )
        told.append(Caution("frames-unexplained", text).of_wavelength(i, len(ripple)))
    return RippleLeft(variance, tuple(told))
