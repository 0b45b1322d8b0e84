"""Calibration of a stack: from a subsample in closed form, or where frames are few by a surface fitted to them."""

from __future__ import annotations

import functools
import itertools
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.stacks.averaged import drift_caution
from cpikan.pipeline.stacks.burnt import find_text
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.pipeline.stacks.subsample import should_differ, take_subsample
from cpikan.psi.calibration.calibrate import Calibration, CalibrationSettings, calibrate
from cpikan.psi.calibration.movement.registration import Registration, registration
from cpikan.psi.calibration.picture import Picture, Window
from cpikan.psi.calibration.questioned import calibrate_questioned, step_major
from cpikan.psi.calibration.samples.averages import average_factors, shared_noise
from cpikan.psi.calibration.samples.repeated import Kept, Repeated, check_decided, find_repeated, with_their_steps
from cpikan.psi.calibration.samples.saturation import SampleLimits, find_limits, swings
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.steps.trusted_steps import left_over
from cpikan.psi.calibration.wavelengths import planning
from cpikan.psi.calibration.wavelengths.patch_agreement import shared_variance
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.noise import noise_from_neighbours
from cpikan.psi.model.schemes import LEAST_SQUARES
from cpikan.psi.refine.ambiguity import is_doubtful
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.threads import RowPool, single_threaded
from cpikan.surface.apertures.aperture import Aperture

if TYPE_CHECKING:
    from cpikan.pipeline.reconstruction.plan import Plan

SIGMA_CELL_PX = 32
_WINDOW = (96, 256)  # rows and columns that shared noise is looked for in
_BESIDE = 4  # further windows of the same rows, of several wavelengths, where they find place side by side
_ENOUGH = 5  # frames of which closed forms find steps, tilts and gains on their own


@dataclass(frozen=True)
class SurfaceFit:
    """A surface fitted to the frames: its ``summary``, JSON-able, and ``sigma_nm``, one per cell of 32 pixels, the
    uncertainty of the surface as a whole, which the phases of all its pixels share."""

    summary: dict[str, Any]
    sigma_nm: np.ndarray


@dataclass(frozen=True)
class StackCalibration:
    """The calibration of a stack, the surface fitted to its frames where one was, whether pixels of the subsample are in
    doubt of their orders (asked where the plan wants to know), the seconds that reading and computing took, what averages
    over squares of pixels are worth (None: not known), and what of the images and frames does not lie on each other."""

    calibration: Calibration
    surface: SurfaceFit | None
    doubtful: bool
    seconds_read: float
    seconds_calibrate: float
    average_factors: dict[int, float] | None = None
    registration: Registration = field(default_factory=lambda: Registration(1))

    @property
    def wider(self) -> bool:
        """Tell whether sigma is to allow for more than noise: what smooth errors have in common, images that moved."""
        return self.calibration.common is not None or bool(self.registration.shifts)

    @property
    def varying(self) -> bool:
        """Tell whether the steps vary over the image."""
        return self.calibration.model.demodulation.models is not None


@dataclass(frozen=True)
class FirstLook:
    """Some pixels of every frame, the seconds and the memory (MiB) that reading them took, pictures that occur twice, the mask
    without what was ``written`` into the frames, and what to say of that."""

    sample: Subsample
    seconds: float
    peak_mib: float
    repeated: tuple[Repeated, ...] = ()
    mask: Aperture | None = None
    written: Caution | None = None

    @classmethod
    def at(cls, stack: FrameStack, settings: ReconstructSettings) -> FirstLook:
        """Look at the frames before anything is compiled or written; InputError where they cannot hold fringes."""
        started = time.perf_counter()
        with PeakMemory() as memory:
            text = find_text(stack)
            mask = text.without(settings.mask)
            sample = take_subsample(stack, mask)
        repeated = find_repeated(sample, stack.acquisition)
        check_decided(repeated, stack.labels, plain=settings.scheme == LEAST_SQUARES)
        known = tuple(one for one in repeated if one.step_deg is not None)
        return cls(sample, time.perf_counter() - started, memory.mib, known, mask, text.caution())


def calibrated(stack: FrameStack, settings: ReconstructSettings, plan: Plan, look: FirstLook) -> StackCalibration:
    """Calibrate a stack as its plan says; raises InputError where its frames cannot be measured."""
    sample, read = look.sample, time.perf_counter()
    asked = CalibrationSettings(settings.scheme, settings.range_nm, settings.combine == "finest", settings.fit)
    inside = sample.frames[..., sample.valid]
    noise_dn = functools.partial(_rough_noise_dn, sample, stack.acquisition)
    limits = find_limits(inside, stack.saturation_dn, stack.acquisition.bit_depth, noise_dn)
    valid = sample.valid & ~limits.clips_black(sample.frames)
    sample = replace(sample, quantum_dn=limits.quantum_dn, black_dn=limits.black_dn, valid=valid)
    acquisition, told, kept = _without_repeats(stack.acquisition, look.repeated)
    with single_threaded():
        calibration, surface = calibrate_stack(
            kept.sample(sample) if kept else sample,
            kept.acquisition(acquisition) if kept else acquisition,
            limits.saturation_dn,
            asked,
            by_surface=plan.fits_surface,
            may_reorder=not told and stack.may_be_step_major and acquisition.order == "wavelength-major",
        )
        if kept:
            calibration = _widened(calibration, kept)
        used = calibration.acquisition
        if used is not None and used.order != stack.acquisition.order:
            sample = step_major(sample)
        model = calibration.model.demodulation
        windows = _windows(stack if used is None else stack.in_order(used.order), sample)
        factors = average_factors(windows[0].frames, model, windows[0].position)
        lying, shared = _registration(windows, calibration, settings.worker_threads)
    if calibration.model.search is not None:
        search = replace(calibration.model.search, shared=max(calibration.model.search.shared, shared))
        calibration = replace(calibration, model=replace(calibration.model, search=search))
    order = stack.acquisition.order if used is None else used.order
    drift = drift_caution(stack, np.array(calibration.steps_deg), order)
    seen = (*shared_noise(factors, calibration.sigma_phase_rad), *lying.cautions())
    calibration = replace(
        calibration,
        warnings=(
            *stack.cautions,
            *(one for one in (look.written, drift) if one is not None),
            *(told or _stored_twice(stack, inside)),
            *_clipped(limits, inside),
            *calibration.warnings,
            *seen,
        ),
    )
    doubtful = plan.neighbours == "in doubt" and _is_doubtful(calibration, sample)
    return StackCalibration(calibration, surface, doubtful, look.seconds, time.perf_counter() - read, factors, lying)


def _rough_noise_dn(sample: Subsample, acquisition: Acquisition) -> float:
    """Estimate the noise of a sample before anything is known: from neighbours, or from what given steps leave if it is less.

    Fringes enlarge the one, steps that are off the other.
    """
    given = acquisition.phase_steps_deg
    found = []
    for i, samples in enumerate(sample.frames[..., sample.valid]):
        rows = sample.rows.samples[i]
        lit = swings(rows.reshape(len(rows), -1)).reshape(rows.shape[1:])
        noise = math.sqrt(noise_from_neighbours(np.where(lit, rows, np.nan), 0.0).read_dn2)
        left, lit = len(samples) - 3, swings(samples)
        if given is not None and left > 0 and lit.any():
            usual = left * (1 - 2 / (9 * left)) ** 3  # the median of chi squared, after Wilson and Hilferty
            noise = min(noise, math.sqrt(left_over(samples[:, lit], given[i]) / usual))
        found.append(noise)
    return max(found)


def _windows(stack: FrameStack, sample: Subsample) -> list[Window]:
    """Read windows of the rows in the middle of what is inside the mask: the middle one first, then some beside it."""
    middle = np.median(sample.position[sample.valid], axis=0).astype(int)
    top, left = (
        int(np.clip(m - w // 2, 0, max(side - w, 0))) for m, w, side in zip(middle, _WINDOW, sample.shape, strict=True)
    )
    height, width = _WINDOW
    band, places = stack.rows(top, min(top + height, sample.shape[0])), [(left, width)]
    if sample.shape[1] >= _BESIDE * width:
        half = width // 2  # together they are two windows more
        places += [(int(x), half) for x in np.linspace(0, sample.shape[1] - half, _BESIDE)]
    windows = []
    for column, columns in places:
        frames = np.array(band[..., column : column + columns])
        y, x = np.mgrid[top : top + frames.shape[2], column : column + frames.shape[3]]
        windows.append(Window(frames, (y, x)))
    return windows


def _registration(windows: list[Window], calibration: Calibration, threads: int) -> tuple[Registration, float]:
    """Look whether the images of several wavelengths lie on each other, and for phase errors that neighbours share."""
    model = calibration.model
    if model.search is None:
        return Registration(1), 0.0
    with RowPool(threads) as pool:
        pictures = list(pool.share(lambda window: Picture.of(window, model.demodulation), windows))
        sigma = calibration.sigma_phase_rad
        shared = shared_variance(pictures, model.search, sigma, pool.share)
        return registration(pictures, model.search, sigma, pool.share), shared


def _without_repeats(
    acquisition: Acquisition, repeated: tuple[Repeated, ...]
) -> tuple[Acquisition, tuple[Caution, ...], Kept | None]:
    """Give pictures that occur twice their step: the acquisition, what to say, and the frames to keep (None: all).

    A picture whose noise differs counts twice, a copy once. Steps that were said to be trusted stay, but for identical frames.
    """
    said = acquisition.steps == "trusted" and acquisition.steps_said
    used = tuple(one for one in repeated if one.identical or not said)
    if not used:
        return acquisition, (), None
    waves = len(acquisition.wavelengths_nm)
    told = tuple(one.caution(waves) for one in used)
    found = with_their_steps(acquisition, used)
    return found, told, Kept.without(used, waves) if any(one.noise for one in used) else None


def _widened(calibration: Calibration, kept: Kept) -> Calibration:
    """Make the calibration of the kept frames one of all frames."""
    model = calibration.model
    return replace(calibration, model=replace(model, demodulation=kept.widened(model.demodulation)))


def _clipped(limits: SampleLimits, frames: np.ndarray) -> tuple[Caution, ...]:
    """Say how many of the pixels inside the mask, (L, K, P), are clipped."""
    found = limits.caution(frames)
    return () if found is None else (found,)


def _stored_twice(stack: FrameStack, frames: np.ndarray) -> tuple[Caution, ...]:
    """Say which frames of a wavelength are the same picture."""
    count = frames.shape[1]
    same = [
        (i, j, k)
        for i, one in enumerate(frames)
        for j, k in itertools.combinations(range(count), 2)
        if np.array_equal(one[j], one[k]) and should_differ(stack, i * count + j, i * count + k)
    ]
    if not same:
        return ()
    which = "; ".join(f"{j + 1} and {k + 1} of wavelength {i + 1}" for i, j, k in same)
    text = f"frames {which} are identical: one was stored twice; give each frame once, with its step"
    return (Caution("frames-identical", text),)


def _is_doubtful(calibration: Calibration, sample: Subsample) -> bool:
    """Tell whether so many orders of single pixels may be wrong that their neighbours are worth asking."""
    if (calibration.wrong_order_rate or 0.0) > planning.ACCEPTED_RATE:
        return True
    inside = sample.valid
    return is_doubtful(sample.frames[..., inside], sample.position[inside], sample.shape, calibration.model)


def calibrate_stack(
    sample: Subsample,
    acquisition: Acquisition,
    saturation_dn: float,
    settings: CalibrationSettings,
    *,
    by_surface: bool,
    may_reorder: bool = False,
) -> tuple[Calibration, SurfaceFit | None]:
    """Find the model of the pixels, and the surface fitted to the frames, None where none was needed.

    ``by_surface`` fits the frames of one wavelength where steps are not to be had pixel by pixel: two frames, up to four
    whose steps are not trusted, and any whose calibration is refused. A fit that does not determine the surface leaves the
    closed form's answer. Several wavelengths are questioned where they do not agree, with ``may_reorder`` the order of the
    frames too. Raises InputError where neither has one.
    """
    if len(sample.frames) > 1:
        return calibrate_questioned(sample, acquisition, saturation_dn, settings, may_reorder=may_reorder), None
    few = sample.frames.shape[1] < 3 or (sample.frames.shape[1] < _ENOUGH and acquisition.steps != "trusted")
    refused: InputError | None = None
    if not (by_surface and few):
        try:
            return calibrate(sample, acquisition, saturation_dn, settings), None
        except InputError as error:
            if not by_surface:
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
    """Calibrate in closed form where the fit was of no use; a refusal is told with the fit's reason ``why``."""
    try:
        return calibrate(sample, acquisition, saturation_dn, settings)
    except InputError as error:
        raise InputError(f"{error}; nor do the frames fit a smooth surface: {why}") from None


def _by_frames(
    sample: Subsample, acquisition: Acquisition, saturation_dn: float, settings: CalibrationSettings
) -> tuple[Calibration, SurfaceFit]:
    from cpikan.psi.calibration.surface_fit.fit import fit_surface_to_frames

    with single_threaded():  # again: the import above loaded torch
        fit = fit_surface_to_frames(sample, acquisition, saturation_dn)
        cells = [np.arange(-(-side // SIGMA_CELL_PX)) * SIGMA_CELL_PX + SIGMA_CELL_PX / 2 for side in sample.shape]
        sigma = np.stack([fit.sigma_nm(np.stack(np.broadcast_arrays(y, cells[1]), axis=1)) for y in cells[0]])
    if not fit.determined:
        raise InputError(f"{fit.reason}; take more frames or tilt the part for more fringes, or give --phase-steps")
    calibration = calibrate(sample, acquisition, saturation_dn, settings, fit.stack_steps())
    return calibration, SurfaceFit(fit.summary(), sigma.astype(np.float32))
