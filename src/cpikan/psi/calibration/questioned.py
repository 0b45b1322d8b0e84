"""Calibration that questions what it was given where the wavelengths do not agree under it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.calibration.calibrate import (
    Calibration,
    CalibrationSettings,
    calibrate,
    measured,
    ordered,
)
from cpikan.psi.calibration.questions import Answer, check_copies, questioned, trial_range_nm
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.steps.trusted_steps import left_over
from cpikan.psi.calibration.wavelengths.order_model import NoAgreementError
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution
from cpikan.units import format_length

_FEWEST_LEFT = 4  # frames that leave something beside three unknowns
_DOUBTFUL_RATE = 1e-4  # of wrong orders
_DECIDED_RATE = 1e-2  # of wrong orders
_BROKEN = {"steps-off", "steps-replaced", "frames-unexplained"}  # what frames in another order look like
_AS_QUIET = 1.1  # times the phase noise: other frames of the same camera
_FAR_SHORTER = 0.8  # of the range that noise allows
_AS_GOOD = 1.1  # times the misfit over the long range
_QUIETER = 0.6  # of the phase noise, at most, that is left when the frames follow each other in another order


def calibrate_questioned(
    sample: Subsample,
    acquisition: Acquisition,
    saturation_dn: float,
    settings: CalibrationSettings,
    *,
    may_reorder: bool,
) -> Calibration:
    """Calibrate several wavelengths as given, or as the frames have it where only that fits.

    Other orders of frames (where the file leaves them open), wavelengths in another order, steps in reverse and wavelengths
    that are off are tried; then smooth errors between wavelengths. Heights that fit but fill the whole range are questioned
    too: a wavelength that is off a little finds orders far away that fit. Raises InputError where nothing fits, and where one
    wavelength is a copy of another.
    """
    bench = _Bench(sample, acquisition, saturation_dn, replace(settings, smooth_errors=False))
    try:
        taken = measured(sample, acquisition, saturation_dn, settings)
    except InputError:
        other = _step_major(bench) if may_reorder else None
        if other is None or _is_broken(other):
            raise
        return other
    assert taken.phases is not None
    try:
        given = ordered(taken, acquisition, bench.settings)
    except NoAgreementError:
        given = None
    if may_reorder and _is_doubtful(given):
        other = _step_major(bench)
        if other is not None and _is_quieter(other, taken, given):
            return other
    if given is None or not given.fits or _fills_range(given):
        check_copies(taken.phases)
        answers = (_answered(bench, taken, answer) for answer in questioned(taken.phases, acquisition))
        fitting = (found for found in answers if found is not None and found.fits)
        if given is None or not given.fits:
            return next(fitting, None) or ordered(taken, acquisition, settings)
        return next((found for found in fitting if is_better(found)), None) or _short(bench, taken, given)
    return given


@dataclass(frozen=True)
class _Bench:
    """What is calibrated, as it was given; the settings without smooth errors."""

    sample: Subsample
    acquisition: Acquisition
    saturation_dn: float
    settings: CalibrationSettings


def _step_major(bench: _Bench) -> Calibration | None:
    """Calibrate with wavelengths and steps exchanged; None where that does not fit."""
    other = step_major(bench.sample)
    if not _leaves_less(other, bench):
        return None
    try:
        found = calibrate(other, bench.acquisition, bench.saturation_dn, bench.settings)
    except InputError:
        return None
    return _told(found, replace(bench.acquisition, order="step-major"), _STEP_MAJOR) if found.fits else None


def _leaves_less(other: Subsample, bench: _Bench) -> bool:
    """Tell whether the steps as given leave less of frames in another order: else no fit of steps need be tried.

    Three frames leave nothing of any order.
    """
    given = bench.acquisition.phase_steps_deg
    if given is None or len(given[0]) < _FEWEST_LEFT:
        return True
    usable = other.valid & np.isfinite(other.frames).all(axis=(0, 1))
    before, after = (
        sum(left_over(frames[:, usable], steps) for frames, steps in zip(sample.frames, given, strict=True))
        for sample in (bench.sample, other)
    )
    return after < before


def _answered(bench: _Bench, taken: Calibration, answer: Answer) -> Calibration | None:
    """Calibrate as an answer has it; None where nothing agrees. Other wavelengths leave steps and phases as they are."""
    try:
        if answer.acquisition.phase_steps_deg != bench.acquisition.phase_steps_deg:
            taken = measured(bench.sample, answer.acquisition, bench.saturation_dn, bench.settings)
        return _told(ordered(taken, answer.acquisition, bench.settings), answer.acquisition, answer.caution)
    except InputError:
        return None


def _short(bench: _Bench, taken: Calibration, given: Calibration) -> Calibration:
    """Take a shorter range where all heights fit it as well: those far away are then orders that fit by chance."""
    assert taken.phases is not None
    try:
        found = ordered(taken, bench.acquisition, replace(bench.settings, range_nm=trial_range_nm(taken.phases)))
    except NoAgreementError:
        return given
    return _within_shorter(found, given) if _fits_as_well(found, given) else given


_STEP_MAJOR = Caution(
    "frames-step-major",
    "the frames fit wavelengths and steps exchanged: they are taken as all wavelengths of one step after the other; say "
    'order = "step-major" (--order step-major)',
)


def step_major(sample: Subsample) -> Subsample:
    """Take the frames as all wavelengths of one step after the other."""
    wavelengths, steps = sample.frames.shape[:2]

    def exchanged(frames: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(frames.reshape(steps, wavelengths, *frames.shape[2:]).swapaxes(0, 1))

    rows = replace(sample.rows, samples=exchanged(sample.rows.samples))
    return replace(sample, frames=exchanged(sample.frames), rows=rows)


def _is_doubtful(given: Calibration | None) -> bool:
    """Tell whether the frames, taken as given, leave a doubt that another order of theirs may explain."""
    if given is None or not given.fits or (given.wrong_order_rate or 0.0) > _DOUBTFUL_RATE:
        return True
    return _is_broken(given)


def _is_broken(found: Calibration) -> bool:
    return not _BROKEN.isdisjoint(one.name for one in found.warnings)


def _fills_range(found: Calibration) -> bool:
    return "range-filled" in [one.name for one in found.warnings]


def is_better(found: Calibration) -> bool:
    """Tell whether an answer explains phases that fit as given, but fill the range: inside its own, with orders decided.

    Where noise leaves orders open they fill any range, under every acquisition.
    """
    return not _fills_range(found) and (found.wrong_order_rate or 0.0) < _DECIDED_RATE


def _fits_as_well(shorter: Calibration, given: Calibration) -> bool:
    """Tell whether all heights are explained by a shorter range."""
    assert shorter.range_nm is not None
    assert given.range_nm is not None
    if not shorter.fits or shorter.range_nm > _FAR_SHORTER * given.range_nm:
        return False
    return (shorter.fit_across_wavelengths or math.inf) <= _AS_GOOD * (given.fit_across_wavelengths or 0.0)


def _within_shorter(shorter: Calibration, given: Calibration) -> Calibration:
    assert shorter.range_nm is not None
    assert given.range_nm is not None
    text = (
        f"the heights fit a range of {format_length(shorter.range_nm)} as well as one of {format_length(given.range_nm)}, "
        "which they would fill: the shorter one is used, for a wavelength that is off by a per mille has that effect; say "
        "--range if the surface is higher"
    )
    return replace(shorter, warnings=(*shorter.warnings, Caution("range-filled", text)))


def _is_quieter(other: Calibration, taken: Calibration, given: Calibration | None) -> bool:
    """Tell whether frames in another order fit clearly better: less is left, or nothing strange where there was some."""
    before, after = float(np.mean(taken.sigma_phase_rad)), float(np.mean(other.sigma_phase_rad))
    strange = given is None or not given.fits or (_is_broken(given) and not _is_broken(other))
    return after < _QUIETER * before or (strange and after < _AS_QUIET * before)


def _told(found: Calibration, acquisition: Acquisition, caution: Caution) -> Calibration:
    return replace(found, acquisition=acquisition, warnings=(caution, *found.warnings))
