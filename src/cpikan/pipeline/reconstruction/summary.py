"""The figures of a run: the JSON of `reconstruct`, and the document kept beside the output."""

from __future__ import annotations

import getpass
import hashlib
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.calibration.calibrate import Calibration
from cpikan.psi.kernels.statistics import MapStatistics
from cpikan.psi.model.caution import Caution
from cpikan.storage.atomic import plain
from cpikan.version import VERSION

if TYPE_CHECKING:
    from cpikan.pipeline.reconstruction.calibrate import StackCalibration

# parts overlap: their sum may exceed the whole
_SECONDS = ("read", "calibrate", "demodulate", "orders", "refine", "write")
_OF_FIT = (
    *("effects", "omitted", "determined", "reason", "conditioning", "circle_coverage", "fringes"),
    *("residual_dn", "residual_over_three_dn"),
)
_REPORTS = (
    "unwrapping",
    "refining",
    "learned",
    "inpainting",
    "ripple_mrad",
    "reference",
    "form",
    "surface",
    "field_fit",
)


def first_facts(method: str, device: str, calibrated: StackCalibration) -> dict[str, Any]:
    """Begin the summary before the first stage: what calibration found, and None for what no stage reports."""
    calibration, surface = calibrated.calibration, calibrated.surface
    return {
        **{f"seconds_{name}": 0.0 for name in _SECONDS},
        **dict.fromkeys(_REPORTS),
        "seconds_read": calibrated.seconds_read,
        "seconds_calibrate": calibrated.seconds_calibrate,
        "method": method,
        "methods_used": [],
        "device": device,
        "phase_steps_deg": [list(row) for row in calibration.steps_deg],
        "steps_by": _steps_by(calibrated),
        "sign": "assumed" if calibration.steps.sign_is_guess else "from the steps",
        "components": 1,
        "sigma_nm_median": calibration.sigma_nm_median,
        "sigma_systematic_share": calibration.systematic_share,
        "sigma_average_factors": plain(calibrated.average_factors),
        "range_nm": calibration.range_nm,
        "expected_wrong_order_rate": calibration.wrong_order_rate,
        "fit_across_wavelengths": calibration.fit_across_wavelengths,
        "frames_fit": describe_fits(calibration),
        "frames_xxh3": None,
        "frames_sha256": None,
        "seconds_hash": None,
        "field_fit": None if surface is None else surface.summary,
        **told(calibration.warnings),
    }


def told(cautions: Iterable[Caution]) -> dict[str, list[str]]:
    """Put cautions into the summary: the sentences of warnings, their names in the same order, and notes."""
    cautions = tuple(cautions)
    doubts = [one for one in cautions if not one.is_note]
    notes = [one.text for one in cautions if one.is_note]
    return {"warnings": [one.text for one in doubts], "warning_names": [one.name for one in doubts], "notes": notes}


def added(facts: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one more part into the facts: lists are appended to, seconds add up, other facts replace older ones."""
    more = dict(part)
    for name in facts.keys() & part.keys():
        if isinstance(part[name], list) or name.startswith("seconds_"):
            more[name] = facts[name] + part[name]
    return {**facts, **more}


def map_figures(statistics: MapStatistics, shape: tuple[int, int], pv_robust_nm: float | None) -> dict[str, Any]:
    """Compute the part of the summary that counts the pixels of the output."""
    pixels, valid = shape[0] * shape[1], max(statistics.valid, 1)
    return {
        "valid_fraction": statistics.valid / pixels,
        "ambiguous_fraction": statistics.ambiguous / valid,
        "saturated_fraction": statistics.saturated / pixels,
        "low_modulation_fraction": statistics.low / pixels,
        "pv_nm": statistics.pv_nm,
        "pv_robust_nm": pv_robust_nm,
        "rms_nm": statistics.rms_nm,
    }


def _steps_by(calibrated: StackCalibration) -> str:
    """Tell where the steps come from: a surface fitted to the frames, a fit pixel by pixel, or the user."""
    if calibrated.surface is not None:
        return "frames fit"
    return "given" if calibrated.calibration.steps.fits is None else "steps fit"


def document(
    stack: FrameStack,
    identity: dict[str, Any],
    calibration: Calibration,
    summary: dict[str, Any],
    where: dict[str, str | None],
) -> dict[str, Any]:
    """Collect what is kept as JSON beside the output.

    Acquisition, settings, calibration, summary, provenance with ``where`` (`run_place`); under ``plan`` what a resumed run
    must share.
    """
    return {
        "acquisition": asdict(stack.acquisition),
        "settings": {**identity["settings"], "device": summary["device"]},
        "calibration": describe_calibration(calibration),
        "summary": summary,
        "provenance": {
            "source": stack.source,
            "form": stack.form,
            "shape": list(stack.shape),
            "dtype": str(stack.dtype),
            "orientation": stack.orientation or None,
            "prepared": list(stack.prepared),
            "fingerprint": _fingerprint(stack, summary["frames_xxh3"]),
            "stamp": stack.stamp(),
            "cpikan": VERSION,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            **where,
        },
        "plan": identity,
    }


def run_place(started: datetime, *, anonymous: bool) -> dict[str, str | None]:
    """Tell when a run began and ended, by which command, and by whom and where unless it is to be ``anonymous``."""
    user = host = None
    if not anonymous:
        host = platform.node() or None
        with suppress(OSError, KeyError, ImportError):  # a container may have no name for its user
            user = getpass.getuser()
    ended = datetime.now(UTC)
    times = {name: at.isoformat(timespec="milliseconds") for name, at in (("started", started), ("ended", ended))}
    return {**times, "command": shlex.join(sys.argv), "user": user, "host": host}


def _fingerprint(stack: FrameStack, frames_xxh3: str) -> str:
    """Hash all frames and their acquisition to the identity of the input."""
    return hashlib.sha256(f"{frames_xxh3} {stack.shape} {stack.acquisition}".encode()).hexdigest()


def describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """Describe the calibration as JSON: noise, steps, thresholds, pistons and tilts between wavelengths."""
    alignment = calibration.alignment
    return {
        "noise": [asdict(one) for one in calibration.noise],
        "sigma_phase_rad": list(calibration.sigma_phase_rad),
        "phase_floor_rad": [float(v) ** 0.5 for v in calibration.model.demodulation.phase_floor_rad2],
        "snr_min": calibration.model.demodulation.snr_min,
        "phase_steps_deg": [list(row) for row in calibration.steps_deg],
        "step_deviation_deg": calibration.steps.deviation_deg,
        "frames_fit": describe_fits(calibration),
        "relative_piston_turns": None if alignment is None else alignment.piston_turns.tolist(),
        "relative_tilt_turns_per_pixel": None if alignment is None else alignment.tilt_turns.tolist(),
        "absolute_height": None if alignment is None else alignment.absolute,
        "misfit": None if alignment is None else alignment.misfit,
        "acquisition_used": None if calibration.acquisition is None else asdict(calibration.acquisition),
        "smooth_errors_turns": _smooth_errors(calibration),
    }


def _smooth_errors(calibration: Calibration) -> list[Any] | None:
    """Give the factors of y^i x^j by wavelength, the shortest first, of what was taken off; None where nothing was."""
    search = calibration.model.search
    return None if search is None or search.bow_turns is None else search.bow_turns.tolist()


def describe_fits(calibration: Calibration) -> list[dict[str, Any]] | None:
    """Describe what was fitted to the frames of each wavelength, JSON-able; None where the steps were trusted."""
    fits = calibration.steps.fits
    if fits is None:
        return None
    before, after = calibration.ripple_before_mrad, calibration.ripple_after_mrad
    found: list[dict[str, Any]] = plain(
        [
            {
                "phase_steps_deg": fit.steps_deg,
                "step_error_deg": np.degrees(fit.step_error_rad),
                "tilt_rad_px": fit.model.tilt_rad_px,
                "tilt_pivot_px": fit.model.pivot,
                "defocus_rad_px2": fit.model.defocus_rad_px2,
                "gain": fit.model.gain,
                "offset_dn": fit.model.offset_dn,
                "contrast": fit.model.fringe_contrast,
                "harmonic_ratio": fit.harmonic_ratio,
                "harmonics_per_pixel": fit.model.harmonics,
                "response": fit.model.response and asdict(fit.model.response),
                **{name: getattr(fit, name) for name in _OF_FIT},
                "ripple_expected_mrad": 1e3 * fit.ripple_rad,
                "ripple_before_mrad": before and before[i],
                "ripple_after_mrad": after and after[i],
                "iterations": fit.iterations,
                "converged": fit.converged,
                "sign": fit.sign,
            }
            for i, fit in enumerate(fits)
        ]
    )
    return found
