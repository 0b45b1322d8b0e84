"""The figures of a run: the JSON of `reconstruct`, and the document kept beside the output."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.calibration.calibrate import Calibration
from cpikan.psi.kernels.statistics import MapStatistics
from cpikan.version import VERSION


@dataclass
class Timings:
    """Seconds each part was busy; parts overlap, so they may add up to more than ``total``."""

    start: float = 0.0
    total: float = 0.0
    read: float = 0.0
    calibrate: float = 0.0
    demodulate: float = 0.0
    orders: float = 0.0
    refine: float = 0.0
    write: float = 0.0


@dataclass
class RunFacts:
    """What a run found out on its way to the summary."""

    method: str
    device: str
    band_rows: int | None = None
    methods_used: list[str] = field(default_factory=list)
    components: int = 1
    sigma_nm_median: float | None = None
    peak_anonymous_mib: float = 0.0
    peak_device_mib: float | None = None
    field_fit: dict[str, Any] | None = None
    unwrapping: dict[str, Any] | None = None
    refining: dict[str, Any] | None = None
    learned: dict[str, Any] | None = None
    inpainting: dict[str, Any] | None = None
    ripple_mrad: dict[str, float] | None = None
    form: dict[str, Any] | None = None
    surface: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)


def summarize(
    stack: FrameStack,
    calibration: Calibration,
    statistics: MapStatistics,
    timings: Timings,
    facts: RunFacts,
    output: str,
) -> dict[str, Any]:
    """The JSON object of `reconstruct` (design, section 6), with a few more keys."""
    pixels = stack.shape[2] * stack.shape[3]
    valid = max(statistics.valid, 1)
    return {
        "seconds": timings.total,
        "seconds_start": timings.start,
        "seconds_read": timings.read,
        "seconds_calibrate": timings.calibrate,
        "seconds_demodulate": timings.demodulate,
        "seconds_orders": timings.orders,
        "seconds_refine": timings.refine,
        "seconds_write": timings.write,
        "megapixels_per_second": pixels / 1e6 / max(timings.total, 1e-9),
        "peak_anonymous_mib": facts.peak_anonymous_mib,
        "peak_device_mib": facts.peak_device_mib,
        "method": facts.method,
        "methods_used": facts.methods_used,
        "device": facts.device,
        "band_rows": facts.band_rows,
        "phase_steps_deg": [list(row) for row in calibration.steps_deg],
        "steps": stack.acquisition.steps,
        "steps_by": _steps_by(calibration, facts),
        "sign": "assumed" if calibration.steps.sign == "assumed" else "from the steps",
        "valid_fraction": statistics.valid / pixels,
        "ambiguous_fraction": statistics.ambiguous / valid,
        "saturated_fraction": statistics.saturated / pixels,
        "low_modulation_fraction": statistics.low / pixels,
        "components": facts.components,
        "sigma_nm_median": facts.sigma_nm_median,
        "pv_nm": statistics.pv_nm,
        "rms_nm": statistics.rms_nm,
        "range_nm": calibration.range_nm,
        "expected_wrong_order_rate": calibration.wrong_order_rate,
        "unwrapping": facts.unwrapping,
        "refining": facts.refining,
        "learned": facts.learned,
        "inpainting": facts.inpainting,
        "ripple_mrad": facts.ripple_mrad,
        "form": facts.form,
        "surface": facts.surface,
        "frames_fit": describe_fits(calibration),
        "field_fit": facts.field_fit,
        "warnings": [*calibration.warnings, *facts.warnings],
        "output": output,
    }


def _steps_by(calibration: Calibration, facts: RunFacts) -> str:
    """Where the steps come from: a surface fitted to the frames, a fit pixel by pixel, or the user."""
    if facts.field_fit is not None:
        return "frames fit"
    return "given" if calibration.steps.fits is None else "steps fit"


def document(
    stack: FrameStack, plan: dict[str, Any], calibration: Calibration, summary: dict[str, Any]
) -> dict[str, Any]:
    """What is kept as JSON beside the output: acquisition, settings, calibration, summary, provenance."""
    return {
        "acquisition": asdict(stack.acquisition),
        "settings": plan["settings"],
        "calibration": describe_calibration(calibration),
        "summary": summary,
        "provenance": {
            "source": stack.source,
            "form": stack.form,
            "shape": list(stack.shape),
            "dtype": str(stack.dtype),
            "fingerprint": plan["input"],
            "cpikan": VERSION,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
        },
        "plan": plan,
    }


def describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """Calibration as JSON: noise, steps, thresholds, pistons and tilts between wavelengths."""
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
    }


def describe_fits(calibration: Calibration) -> list[dict[str, Any]] | None:
    """What was fitted to the frames of each wavelength, JSON-able; None where the steps were trusted."""
    fits = calibration.steps.fits
    if fits is None:
        return None
    before, after = calibration.ripple_before_mrad, calibration.ripple_after_mrad
    found = []
    for i, fit in enumerate(fits):
        model = fit.model
        found.append(
            {
                "phase_steps_deg": list(fit.steps_deg),
                "step_error_deg": np.degrees(fit.step_error_rad).tolist(),
                "tilt_rad_px": model.tilt_rad_px.tolist(),
                "tilt_pivot_px": list(model.pivot),
                "defocus_rad_px2": model.defocus_rad_px2.tolist(),
                "gain": model.gain.tolist(),
                "offset_dn": model.offset_dn.tolist(),
                "harmonic_ratio": {str(order): ratio for order, ratio in fit.harmonic_ratio.items()},
                "harmonics_per_pixel": list(model.harmonics),
                "response": None if model.response is None else asdict(model.response),
                "effects": list(fit.effects),
                "omitted": dict(fit.omitted),
                "determined": fit.determined,
                "reason": fit.reason,
                "conditioning": fit.conditioning,
                "circle_coverage": fit.circle_coverage,
                "fringes": fit.fringes,
                "residual_dn": _finite(fit.residual_dn),
                "residual_over_three_dn": _finite(fit.residual_over_three_dn),
                "ripple_expected_mrad": 1e3 * fit.ripple_rad,
                "ripple_before_mrad": _keyed(before, i),
                "ripple_after_mrad": _keyed(after, i),
                "iterations": fit.iterations,
                "converged": fit.converged,
                "sign": fit.sign,
            }
        )
    return found


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _keyed(ripple: tuple[dict[int, float] | None, ...] | None, i: int) -> dict[str, float] | None:
    one = None if ripple is None else ripple[i]
    return None if one is None else {str(k): value for k, value in one.items()}
