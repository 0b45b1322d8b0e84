"""Relative piston and tilt of the wavelengths, and the centre and extent of the heights.

Differences of phases between two pixels know nothing of the pistons between wavelengths. So the orders of a subsample are
found relative to one of its pixels; what the wavelengths then leave over, averaged, are their pistons and tilts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cpikan.order_statistics import median, quantile
from cpikan.psi.calibration.regression import weighted_plane

_REGIONS = 6  # per axis
_REGION_PIXELS = 40
_ERRORS = 4.0  # standard errors by which the mean of a region may be high by chance


def fitting(misfit: np.ndarray) -> np.ndarray:
    """Choose the pixels whose misfit (P,) is not that of dust or of heights outside the window."""
    return misfit <= max(30.0, 8 * median(misfit)) if misfit.size else misfit.astype(bool)


def trimmed_mean(misfit: np.ndarray) -> float:
    """Compute the mean misfit without the few pixels that fit nothing."""
    keep = fitting(misfit)
    return float(misfit[keep].mean()) if keep.any() else 0.0


def worst_region(position: np.ndarray, misfit: np.ndarray, degrees: int) -> float:
    """Find the largest mean misfit per degree of freedom over the regions of an image, less what chance may add.

    ``misfit`` (P,) has ``degrees`` of freedom a pixel, pixels are at ``position`` (P, 2).
    """
    if not misfit.size:
        return 0.0
    low, reach = position.min(axis=0), np.ptp(position, axis=0) + 1e-9
    region = np.minimum(((position - low) / reach * _REGIONS).astype(int), _REGIONS - 1) @ (_REGIONS, 1)
    found = 0.0
    for number in range(_REGIONS**2):
        inside = misfit[region == number]
        if inside.size >= _REGION_PIXELS:
            chance = 1 + _ERRORS * np.sqrt(2 / (degrees * inside.size))
            found = max(found, trimmed_mean(inside) / degrees / chance)
    return float(found)


# (turns (L, P), variance (L, P), low, range) in turns of the anchor -> order, correction, misfit, runner-up's misfit
Search = Callable[[np.ndarray, np.ndarray, float, float], tuple[np.ndarray, ...]]

_ORIGINS = 24  # pixels tried as the origin
_THIN = 1500  # pixels that decide between hypotheses
_FEWEST = 3000  # pixels looked at
_TRIALS = 4e6  # orders tried per look, about
_OUTLIER_TURNS = 0.2
_SIGNIFICANT = 5.0  # standard errors
_GOOD_MISFIT = 1.2  # per degree of freedom: nothing is left for pistons to explain
_STRAY = 0.005  # share of pixels outside the window, or dust
_LOOSE_TURNS = 0.008  # phase error allowed for while tilts are not known yet
_WIDENINGS = 3  # a window off the data sees a part of it, and is centred on that part
_TAIL = 0.15  # heights this share of the extent beyond 99.6 % of all still belong to it
_CLEAR = 9.0  # runner-up distance in chi squared
_FILLED = 0.9  # of the window, from which it may have been put across the data
_NARROWER = 0.9  # of the extent, at most, that is left when it was
_NO_WORSE = 1.02  # times the misfit


@dataclass(frozen=True)
class Samples:
    """Phases of P pixels, anchor wavelength first: ``turns`` and their ``variance`` (turns^2), (L, P); ``position`` (P, 2).

    ``position`` is y, x in pixels from the centre of the image. ``ratio`` is anchor over wavelength, (L,).
    """

    turns: np.ndarray
    variance: np.ndarray
    position: np.ndarray
    ratio: np.ndarray


@dataclass(frozen=True)
class Ranges:
    """Lengths in turns of the anchor: ``full``, what is searched in the end; ``robust``, what can be told apart before
    pistons are known; ``absolute``, within which a common height of all pistons is looked for; ``farthest``, how far from
    zero heights may lie before float32 loses hundredths of a nanometre."""

    full: float
    robust: float
    absolute: float
    farthest: float


@dataclass(frozen=True)
class Alignment:
    """Relative piston (L,) and tilt (L, 2; turns per pixel in y, x) and the heights' extent in turns of the anchor.

    ``absolute`` tells whether heights count from where all phases vanish together (no relative piston beyond its error)
    or from the middle of the data. ``misfit`` is chi squared per degree of freedom, averaged over the
    ``pixels`` looked at that fit; ``stray`` is the share that does not, ``worst_misfit`` the misfit of the worst region.
    """

    piston_turns: np.ndarray
    tilt_turns: np.ndarray
    low_turns: float
    high_turns: float
    absolute: bool
    misfit: float
    pixels: int
    stray: float = 0.0
    worst_misfit: float = 0.0

    @property
    def centre_turns(self) -> float:
        return (self.low_turns + self.high_turns) / 2


@dataclass(frozen=True)
class Guess:
    """Pistons, tilts and the window of heights, while they are being found."""

    piston: np.ndarray
    tilt: np.ndarray
    middle: float
    span: float


@dataclass(frozen=True)
class Decoded:
    heights: np.ndarray
    residual: np.ndarray
    misfit: np.ndarray
    clear: np.ndarray


def align(samples: Samples, search: Search, ranges: Ranges) -> Alignment:
    """Estimate pistons, tilts, centre and extent from a subsample whose heights span at most ``ranges.full``.

    Phases that vanish together are the simplest explanation; only if they leave the data unexplained, pistons and tilts
    are sought relative to a pixel of the data, by growing the region around it.
    """
    few = thin(samples, max(_FEWEST, int(_TRIALS / max(ranges.full, 1.0))))  # long ranges try many orders a pixel
    plain = _refine(few, search, _without_pistons(few, search, ranges), ranges)
    best = _finish(few, search, plain, ranges, searched=False)
    if best.misfit > _GOOD_MISFIT or best.stray > _STRAY:
        grown = _refine(few, search, _from_origin(few, search, ranges), ranges)
        other = _finish(few, search, grown, ranges, searched=True)
        explained = other.misfit < 1.05 * best.misfit and other.stray < 0.5 * best.stray
        best = other if other.misfit < 0.95 * best.misfit or explained else best
    return best


def decode(samples: Samples, search: Search, guess: Guess, loose: float = 0.0) -> Decoded:
    """Decode heights, residual turns (L, P), misfit and which pixels are unambiguous, under a guess."""
    turns = samples.turns - guess.piston[:, None] - guess.tilt @ samples.position.T
    order, correction, best, second = search(
        turns, samples.variance + loose**2, guess.middle - guess.span / 2, guess.span
    )
    heights = turns[0] + order + correction
    residual = turns - samples.ratio[:, None] * heights
    # single precision leaves a misfit of nothing on either side of zero
    return Decoded(heights, residual - np.rint(residual), np.maximum(best, 0.0), second - best > _CLEAR)


def _without_pistons(samples: Samples, search: Search, ranges: Ranges) -> Guess:
    """Guess the window of heights without pistons: the one, near zero first, in which the data fit best."""
    some = thin(samples, _THIN)
    none, level = np.zeros(len(samples.ratio)), np.zeros((len(samples.ratio), 2))
    steps = min(10, int(ranges.absolute / ranges.full))
    found = []
    for k in sorted(range(-steps, steps + 1), key=abs):
        guess = Guess(none, level, k * ranges.full / 2, ranges.full)
        misfit = float(np.minimum(decode(some, search, guess).misfit, 50.0).mean())
        found.append((misfit, guess))
        if misfit < len(samples.ratio) - 1:
            break
    least = min(misfit for misfit, _ in found)
    return next(guess for misfit, guess in found if misfit <= 1.01 * least)


def _from_origin(samples: Samples, search: Search, ranges: Ranges) -> Guess:
    """Grow pistons relative to one pixel and tilts outward from that pixel; the best of several origins."""
    total = (samples.ratio[:, None] ** 2 / samples.variance).sum(axis=0)
    good = np.argsort(-total, kind="stable")[: max(1, total.size // 4)]
    origins = good[np.linspace(0, good.size - 1, min(_ORIGINS, good.size)).astype(int)]
    flat = np.zeros((len(samples.ratio), 2))
    found = []
    for origin in origins:
        guess = Guess(samples.turns[:, origin].copy(), flat, 0.0, ranges.robust)
        away = np.sqrt(((samples.position - samples.position[origin]) ** 2).sum(axis=1))
        misfit = np.inf
        for share in (0.1, 0.2, 0.4, 0.7, 1.0):
            reach = max(share * away.max(), np.sort(away)[min(149, away.size - 1)])
            inside = thin(subset(samples, away <= reach), _THIN)
            decoded = decode(inside, search, guess, _LOOSE_TURNS)
            guess = improve(inside, decoded, guess)
            misfit = float(np.minimum(decoded.misfit, 50.0).mean())
        found.append((misfit, int(origin), guess))
    return min(found, key=lambda entry: entry[:2])[2]


def _refine(samples: Samples, search: Search, guess: Guess, ranges: Ranges) -> Guess:
    """Refine pistons and tilts from all pixels, the window centred on the data and widened to the full range."""
    for span in (guess.span, guess.span, *_WIDENINGS * (ranges.full,)):
        guess = replace(guess, span=span)
        decoded = decode(samples, search, guess)
        guess = improve(samples, decoded, guess)
        low, high = _extent(decoded)
        guess = replace(guess, middle=(low + high) / 2)
    return off_the_data(samples, search, guess)


def off_the_data(samples: Samples, search: Search, guess: Guess) -> Guess:
    """Move a window whose ends lie within the data, so that one end of them was folded to the other, into their widest gap.

    Heights a whole window apart fit noisy phases about as well as each other: those that fill it, but for a gap, are
    narrower with the gap at its ends, and fit no worse.
    """
    decoded = decode(samples, search, guess)
    low, high = _extent(decoded)
    heights = np.sort(decoded.heights[decoded.clear & fitting(decoded.misfit)])
    strays = math.ceil(_STRAY * heights.size)
    if high - low < _FILLED * guess.span or heights.size <= 2 * strays + 1:
        return guess
    widths = heights[strays + 1 :] - heights[: -strays - 1]
    widest = int(np.argmax(widths))
    gap = heights[widest] + widths[widest] / 2
    tried = [replace(guess, middle=gap + side * guess.span / 2) for side in (-1, 1)]
    found = [decode(samples, search, one) for one in tried]
    before, *misfits = [float(np.minimum(one.misfit, 50.0).mean()) for one in (decoded, *found)]
    best = int(np.argmin(misfits))
    lowest, highest = _extent(found[best])
    narrower = highest - lowest < _NARROWER * (high - low)
    if not narrower or misfits[best] > _NO_WORSE * before:
        return guess
    return replace(improve(samples, found[best], tried[best]), middle=(lowest + highest) / 2)


def improve(samples: Samples, decoded: Decoded, guess: Guess) -> Guess:
    """Take planes through the residuals of the pixels that fit into the pistons and tilts."""
    fits = (np.abs(decoded.residual) < _OUTLIER_TURNS).all(axis=0)
    use = fits & decoded.clear if (fits & decoded.clear).sum() >= 20 else fits
    if use.sum() < 3:
        return guess
    piston, tilt = _fit_planes(samples.position[use], decoded.residual[:, use], samples.variance[:, use], samples.ratio)
    return replace(guess, piston=guess.piston + piston, tilt=guess.tilt + tilt)


def _finish(samples: Samples, search: Search, guess: Guess, ranges: Ranges, *, searched: bool) -> Alignment:
    """Drop what is not significant, find the height of the origin, and measure extent and misfit as they will be used."""
    decoded = decode(samples, search, guess)
    use = decoded.clear if decoded.clear.any() else np.ones_like(decoded.clear)
    error = np.sqrt(np.array([median(one) for one in samples.variance]) / use.sum()) + 1e-6
    tilt = np.where(_significant_tilt(samples, error, guess.tilt)[:, None], guess.tilt, 0.0)
    height, absolute, piston = 0.0, bool((np.abs(guess.piston) < _tolerance(error)).all()), guess.piston
    if searched:
        height, absolute, piston = _absolute(samples, search, piston, error, ranges.absolute)
    if absolute and not (np.abs(piston) > _SIGNIFICANT * error).any():
        piston = np.zeros_like(piston)
    final = decode(samples, search, Guess(piston, tilt, guess.middle + height, ranges.full))
    low, high = _extent(final)
    centre = (low + high) / 2
    absolute = absolute and abs(centre) <= ranges.farthest
    if not absolute:  # the height of zero means nothing then: put it in the middle of the data
        piston, low, high = piston + samples.ratio * centre, low - centre, high - centre
    dof = max(len(samples.ratio) - 1, 1)
    stray = 1 - float(fitting(final.misfit).mean())
    worst = worst_region(samples.position, final.misfit, dof)
    misfit = trimmed_mean(final.misfit) / dof
    return Alignment(piston, tilt, low, high, absolute, misfit, final.misfit.size, stray, worst)


def subset(samples: Samples, keep: np.ndarray) -> Samples:
    return Samples(samples.turns[:, keep], samples.variance[:, keep], samples.position[keep], samples.ratio)


def thin(samples: Samples, count: int) -> Samples:
    return subset(samples, np.arange(samples.turns.shape[1]) % max(1, samples.turns.shape[1] // count) == 0)


def _fit_planes(
    position: np.ndarray, residual: np.ndarray, variance: np.ndarray, ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a weighted plane per wavelength to the residuals; what a common height explains stays with the height."""
    scale = max(float(np.abs(position).max()), 1.0)
    fits = zip(residual, 1 / np.sqrt(variance), strict=True)
    planes = np.array([weighted_plane(position / scale, values, weight) for values, weight in fits])
    worth = ratio / variance.mean(axis=1)
    planes -= np.outer(ratio, worth @ planes / (worth @ ratio))
    return planes[:, 0], planes[:, 1:] / scale


def _extent(decoded: Decoded) -> tuple[float, float]:
    """Find the lowest and highest unambiguous height, without a few stray ones and those that fit nowhere in the window."""
    use = decoded.heights[decoded.clear & fitting(decoded.misfit)]
    use = use if use.size else decoded.heights
    if use.size == 0:
        return 0.0, 0.0
    low, high = (quantile(use, share) for share in (0.002, 0.998))
    reach = _TAIL * (high - low)
    near = use[(use >= low - reach) & (use <= high + reach)]  # corners and peaks hold few pixels
    return float(near.min()), float(near.max())


def _absolute(
    samples: Samples, search: Search, piston: np.ndarray, error: np.ndarray, range_turns: float
) -> tuple[float, bool, np.ndarray]:
    """Find the height in turns at the origin that explains all pistons, whether one does, and the pistons left."""
    allowed = (3 * error[:, None]) ** 2 + 5e-4**2
    order, correction, _, _ = search(piston[:, None], allowed, -range_turns / 2, range_turns)
    height = float(piston[0] + order[0] + correction[0])
    left = piston - samples.ratio * height
    left = left - np.rint(left)
    if not (np.abs(left) < _tolerance(error)).all():
        return 0.0, False, piston
    return height, True, left


def _tolerance(error: np.ndarray) -> np.ndarray:
    """Compute the tolerance in turns below which pistons count as none: no instrument holds a thousandth of a turn."""
    return _SIGNIFICANT * error + 1e-3


def _significant_tilt(samples: Samples, error: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    reach = np.abs(samples.position).max(axis=0)
    spread = np.sqrt((samples.position**2).mean(axis=0)) + 1e-9
    return (np.abs(tilt * reach) > _SIGNIFICANT * error[:, None] * (reach / spread) + 1e-3).any(axis=1)
