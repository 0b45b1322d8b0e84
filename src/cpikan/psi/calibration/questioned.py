"""Calibration that questions what it was given where the wavelengths do not agree under it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.calibration.calibrate import Calibration, CalibrationSettings, Subsample, calibrate
from cpikan.psi.calibration.order_model import MeasuredPhases, NoAgreementError
from cpikan.psi.calibration.questions import Answer, check_copies, questioned, trial_range_nm
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution
from cpikan.units import format_length

_DOUBTFUL_RATE = 1e-4  # of wrong orders
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
    plain = replace(settings, smooth_errors=False)
    given, phases = _tried(sample, acquisition, saturation_dn, plain)
    if may_reorder and _is_doubtful(given):
        other, _ = _tried(step_major(sample), acquisition, saturation_dn, plain)
        if (
            other is not None
            and other.fits
            and (_is_quieter(other, phases, given) if phases else not _is_broken(other))
        ):
            return _told(other, replace(acquisition, order="step-major"), _STEP_MAJOR)
    if given is not None and given.fits and not _fills_range(given):
        return given
    if phases is not None:
        check_copies(phases)
        for answer in questioned(phases, acquisition):
            found, _ = _tried(sample, answer.acquisition, saturation_dn, plain)
            if found is not None and found.fits and not (given is not None and given.fits and _fills_range(found)):
                return _answered(found, answer)
    if given is not None and given.fits and phases is not None:
        shorter, _ = _tried(sample, acquisition, saturation_dn, replace(plain, range_nm=trial_range_nm(phases)))
        return given if shorter is None or not _fits_as_well(shorter, given) else _within_shorter(shorter, given)
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
    return _is_broken(given)


def _is_broken(found: Calibration) -> bool:
    return not _BROKEN.isdisjoint(one.name for one in found.warnings)


def _fills_range(found: Calibration) -> bool:
    return "range-filled" in [one.name for one in found.warnings]


def _fits_as_well(shorter: Calibration, given: Calibration) -> bool:
    """Tell whether all heights are explained by a shorter range: then those far away are orders that fit by chance."""
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


def _is_quieter(other: Calibration, phases: MeasuredPhases, given: Calibration | None) -> bool:
    """Tell whether frames in another order fit clearly better: less is left, or nothing strange where there was some."""
    before, after = float(np.mean(phases.sigma_rad)), float(np.mean(other.sigma_phase_rad))
    strange = given is None or not given.fits or (_is_broken(given) and not _is_broken(other))
    return after < _QUIETER * before or (strange and after < _AS_QUIET * before)


def _answered(found: Calibration, answer: Answer) -> Calibration:
    return _told(found, answer.acquisition, answer.caution)


def _told(found: Calibration, acquisition: Acquisition, caution: Caution) -> Calibration:
    return replace(found, acquisition=acquisition, warnings=(caution, *found.warnings))
