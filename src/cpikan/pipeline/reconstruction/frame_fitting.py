"""Calibration where frames are few or bad: a smooth surface is fitted to the raw frames, and its steps serve the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cpikan.errors import InputError
from cpikan.psi.calibration.calibrate import Calibration, CalibrationSettings, Subsample, calibrate
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.schemes import LEAST_SQUARES

SIGMA_CELL_PX = 32
_ENOUGH = 5  # frames of which closed forms find steps, tilts and gains on their own


@dataclass(frozen=True)
class FramesFit:
    """What a fit of a surface to the frames leaves: its ``summary``, JSON-able, and ``sigma_nm``, one per cell of 32 pixels,
    the uncertainty of the surface as a whole, which the pixels' phases share."""

    summary: dict[str, Any]
    sigma_nm: np.ndarray


def calibrate_stack(
    sample: Subsample, acquisition: Acquisition, saturation_dn: float, settings: CalibrationSettings, method: str
) -> tuple[Calibration, FramesFit | None]:
    """The model of the pixels, and what a fit of a surface to the frames leaves, None where it was not used.

    ``field`` of one wavelength fits the frames where steps are not to be had pixel by pixel: two frames, up to four whose
    steps are not trusted, and any whose calibration is refused. A fit that does not determine the surface leaves the
    closed form's answer. Raises InputError where neither has one.
    """
    asks = method == "field" and len(sample.frames) == 1 and settings.scheme == LEAST_SQUARES
    few = sample.frames.shape[1] < 3 or (sample.frames.shape[1] < _ENOUGH and acquisition.steps != "trusted")
    refused: InputError | None = None
    if not (asks and few):
        try:
            return calibrate(sample, acquisition, saturation_dn, settings), None
        except InputError as error:
            if not asks:
                raise
            refused = error
    try:
        return _by_frames(sample, acquisition, saturation_dn, settings)
    except InputError as error:
        if refused is not None:
            raise InputError(f"{refused}; nor do the frames fit a smooth surface: {error}") from None
        if sample.frames.shape[1] < 3 and acquisition.steps == "trusted":
            raise
        return _closed_form(sample, acquisition, saturation_dn, settings, error), None


def _closed_form(
    sample: Subsample, acquisition: Acquisition, saturation_dn: float, settings: CalibrationSettings, why: InputError
) -> Calibration:
    """The closed form where the fit was of no use; its refusal is the one that is told, with the fit's reason."""
    try:
        return calibrate(sample, acquisition, saturation_dn, settings)
    except InputError as error:
        raise InputError(f"{error}; nor do the frames fit a smooth surface: {why}") from None


def _by_frames(
    sample: Subsample, acquisition: Acquisition, saturation_dn: float, settings: CalibrationSettings
) -> tuple[Calibration, FramesFit]:
    from cpikan.psi.calibration.surface_fit.fit import fit_surface_to_frames

    # products of hundreds of rows: threads that wait for each other on a busy machine take ten times as long. The limit
    # is for what is loaded by now
    with threadpool_limits(limits=1):
        fit = fit_surface_to_frames(sample, acquisition, saturation_dn)
        cells = [np.arange(-(-side // SIGMA_CELL_PX)) * SIGMA_CELL_PX + SIGMA_CELL_PX / 2 for side in sample.shape]
        sigma = np.stack([fit.sigma_nm(np.stack(np.broadcast_arrays(y, cells[1]), axis=1)) for y in cells[0]])
    if not fit.determined:
        raise InputError(f"{fit.reason}; take more frames or tilt the part for more fringes, or give --phase-steps")
    calibration = calibrate(sample, acquisition, saturation_dn, settings, fit.stack_steps())
    return calibration, FramesFit(fit.summary(), sigma.astype(np.float32))
