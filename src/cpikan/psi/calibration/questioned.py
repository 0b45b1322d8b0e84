"""Calibration that questions what it was given where the wavelengths do not agree under it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.calibration.calibrate import Calibration, CalibrationSettings, Subsample, calibrate
from cpikan.psi.calibration.order_model import MeasuredPhases, NoAgreementError
from cpikan.psi.calibration.questions import Answer, check_copies, questioned
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution

_DOUBTFUL_RATE = 1e-4  # of wrong orders
_AS_QUIET = 1.1  # times the phase noise: other frames of the same camera
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
    that are off are tried; then smooth errors between wavelengths. Raises InputError where nothing fits, and where one
    wavelength is a copy of another.
    """
    plain = replace(settings, smooth_errors=False)
    given, phases = _tried(sample, acquisition, saturation_dn, plain)
    if may_reorder and phases is not None and _is_doubtful(given):
        other, _ = _tried(step_major(sample), acquisition, saturation_dn, plain)
        if other is not None and other.fits and _is_quieter(other, phases, given):
            return _told(other, replace(acquisition, order="step-major"), _STEP_MAJOR)
    if given is not None and given.fits:
        return given
    if phases is not None:
        check_copies(phases)
        for answer in questioned(phases, acquisition):
            found, _ = _tried(sample, answer.acquisition, saturation_dn, plain)
            if found is not None and found.fits:
                return _answered(found, answer)
    return calibrate(sample, acquisition, saturation_dn, settings)


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


def _tried(
    sample: Subsample, acquisition: Acquisition, saturation_dn: float, settings: CalibrationSettings
) -> tuple[Calibration | None, MeasuredPhases | None]:
    """Calibrate; None where no heights agree. The phases are given in any case."""
    try:
        found = calibrate(sample, acquisition, saturation_dn, settings)
    except NoAgreementError as error:
        return None, error.phases
    except InputError:
        return None, None
    return found, found.phases


def _is_doubtful(given: Calibration | None) -> bool:
    """Tell whether the frames, taken as given, leave a doubt that another order of theirs may explain."""
    if given is None or not given.fits or (given.wrong_order_rate or 0.0) > _DOUBTFUL_RATE:
        return True
    return "steps-off" in [one.name for one in given.warnings]


def _is_quieter(other: Calibration, phases: MeasuredPhases, given: Calibration | None) -> bool:
    """Tell whether frames in another order fit clearly better: residuals are smaller, or the phases agree and did not."""
    before, after = float(np.mean(phases.sigma_rad)), float(np.mean(other.sigma_phase_rad))
    disagreed = given is None or not given.fits
    return after < _QUIETER * before or (disagreed and after < _AS_QUIET * before)


def _answered(found: Calibration, answer: Answer) -> Calibration:
    return _told(found, answer.acquisition, answer.caution)


def _told(found: Calibration, acquisition: Acquisition, caution: Caution) -> Calibration:
    return replace(found, acquisition=acquisition, warnings=(caution, *found.warnings))
