"""The search for the surface: starts followed to minima, minima refined, compared by their evidence and told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cpikan.psi.calibration.surface_fit.descent import (
    LocalMinimum,
    descend_coarse_to_fine,
    mirrored,
    with_positive_fringes,
)
from cpikan.psi.calibration.surface_fit.problem import Samples
from cpikan.psi.calibration.surface_fit.regularise import (
    DEGREES,
    Pixels,
    RegularisedFit,
    needs_harmonic,
    refine_with_prior,
)
from cpikan.psi.calibration.surface_fit.starts import closed_candidates, closed_forms, smooth_candidates
from cpikan.psi.calibration.surface_fit.thresholds import Thresholds


@dataclass(frozen=True)
class RawFrames:
    """All usable ``samples``, those of the fit among them (``pixels``), and the ``frames_dn`` (K, P) at ``position`` (P, 2)
    from which they were made."""

    samples: Samples
    pixels: Pixels
    position: np.ndarray
    frames_dn: np.ndarray


MinimumSearch = Callable[[RawFrames, int, Thresholds], list[LocalMinimum]]  # the number is the seed of random starts


@dataclass(frozen=True)
class Ranking:
    """The ``best`` minimum, ``pixels`` in its unit, the logarithm of the odds against the next different surface
    (``runner_up``, infinite where there is none), and how many starts led to the best."""

    best: RegularisedFit
    pixels: Pixels
    runner_up: float
    agreeing: int


def part_pixels(samples: Samples, count: int) -> Pixels:
    """Choose pixels to fit, evenly among all, and as many others to judge the fit by."""
    total = len(samples.points)
    which = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    others = np.setdiff1d(np.arange(total), which)
    return Pixels(samples.only(which), samples.only(others).some(count) if len(others) else samples.only(others))


def find_minima(raw: RawFrames, seed: int, limits: Thresholds) -> list[LocalMinimum]:
    """Follow starts to minima, best first.

    Rounds of random ones until one leaves no more than noise, or several in two rounds agree.
    """
    closed = closed_forms(raw.samples, raw.position, raw.frames_dn)
    tried = closed_candidates(raw.samples, closed)
    found: list[LocalMinimum] = []
    for turn in range(limits.rounds):
        tried += smooth_candidates(raw.samples, closed if turn == 0 else [], seed + turn)[: limits.starts_per_round]
        found = sorted([*found, *descend_coarse_to_fine(raw.pixels.fitted, tried)], key=lambda one: one.chi2)
        alike = sum(one.chi2 < limits.alike_chi2 * found[0].chi2 for one in found)
        if found and (found[0].chi2 < limits.good_chi2 or (turn > 0 and alike >= limits.agreeing)):
            break
        tried = []
    return found


def rank_minima(raw: RawFrames, found: list[LocalMinimum], limits: Thresholds) -> Ranking:
    """Refine the best minima with terms as large as the frames show, and compare them by their evidence."""
    fits, pixels = _regularised(raw, found, limits)
    best = fits[0]
    rivals = [
        best.evidence(best.temperature) - o.evidence(best.temperature) for o in fits[1:] if _differ(o, best, limits)
    ]
    agreeing = sum(one.agreeing for one in fits if not _differ(one, best, limits))
    return Ranking(best, pixels, min(rivals, default=np.inf), agreeing)


def _regularised(raw: RawFrames, found: list[LocalMinimum], limits: Thresholds) -> tuple[list[RegularisedFit], Pixels]:
    """Refine the best minima with a prior of the size that the frames show.

    Returns them by falling evidence, with the pixels in their unit.
    """
    pixels = raw.pixels.in_unit_of(found[0])
    degrees = replace(DEGREES, has_second_harmonic=needs_harmonic(pixels, found[0]))
    near: list[list[LocalMinimum]] = []
    for one in (_gauged(one, raw.samples) for one in found if one.chi2 <= limits.close_chi2 * found[0].chi2):
        same = [group for group in near if np.std(group[0].phase_rad - one.phase_rad) < limits.same_rad]
        same[0].append(one) if same else near.append([one])
    fits = [
        replace(refine_with_prior(pixels, group[0], degrees), agreeing=len(group))
        for group in near[: limits.most_minima]
    ]
    fits = [replace(one, minimum=_gauged(one.minimum, raw.samples)) for one in fits]
    coldest = min(one.temperature for one in fits)
    return sorted(fits, key=lambda one: -one.evidence(coldest)), pixels


def _gauged(one: LocalMinimum, samples: Samples) -> LocalMinimum:
    """Make B positive, and the sign that of the convention where the steps leave it open."""
    one = with_positive_fringes(one)
    first = float(one.parameters[one.model.layout.blocks["step"][0]])
    wrong = samples.steps_rad is None and np.sin(first) < 0
    return mirrored(one) if wrong else one


def _differ(one: RegularisedFit, other: RegularisedFit, limits: Thresholds) -> bool:
    off = float(np.std(one.minimum.phase_rad - other.minimum.phase_rad))
    return off > max(limits.same_rad, limits.same_sigmas * max(one.sigma_rad, other.sigma_rad))
