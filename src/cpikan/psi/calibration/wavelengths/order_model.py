"""Set-up of the order search of a stack: range, pistons and tilts, extent of the heights, what the noise leaves open."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammainccinv

from cpikan.errors import InputError
from cpikan.order_statistics import median
from cpikan.psi.calibration.wavelengths import planning
from cpikan.psi.calibration.wavelengths.agreement import Agreement, agreement
from cpikan.psi.calibration.wavelengths.alignment import Alignment, Ranges, Samples, align, worst_region
from cpikan.psi.calibration.wavelengths.common_error import CommonError, common_error
from cpikan.psi.calibration.wavelengths.smooth_errors import blamed, polynomial, smooth_errors
from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.kernels.model import LEAST_MARGIN, OrderSearch
from cpikan.psi.model.caution import Caution
from cpikan.units import format_length

_MISFIT_CHANCE = 1e-7  # a pixel this unlikely to be noise does not fit its order
_FARTHEST_NM = 131072.0  # float32 heights are spaced by 0.008 nm below it
_EDGE_SIGMA = 8.0  # noise of the anchor allowed for at the ends of the range; pixels differ in modulation
_MISFIT_TOLD = 1.5  # chi squared per degree of freedom that is more than a noise model can be off
_EXPLAINED = 0.5  # of the misfit, at most, that is left when smooth errors are worth taking off
_TOLD_BY_TWO = 0.3  # of the distance between neighbouring orders
_GUESSED_AT_MOST = 4.0  # times the variance: what a noise guessed from neighbours can be off
_SHORTER = 0.9  # of the range, for which the alignment is worth another try
_FILLED = 0.9  # of the range, from which heights may lie beyond it
_FOLDED = 0.97
_HOPELESS = 1e-3  # of the orders undecided, where the wavelengths disagree for no reason that was found
_MARGIN = 0.05  # of the extent of the heights, and one order, searched on either side before anything farther


@dataclass(frozen=True)
class MeasuredPhases:
    """Phases of P measured pixels: ``phase_rad`` and ``variance_rad2`` (L, P), ``position`` (P, 2) from the centre of an
    image of ``shape`` (H, W); ``sigma_rad`` is the median phase noise of each wavelength.

    ``noise_is_guessed`` says that the frames left no residual to fit the noise to (three frames).
    """

    wavelengths_nm: tuple[float, ...]
    phase_rad: np.ndarray
    variance_rad2: np.ndarray
    position: np.ndarray
    shape: tuple[int, int]
    sigma_rad: tuple[float, ...]
    noise_is_guessed: bool

    @property
    def order(self) -> tuple[int, ...]:
        """Order the wavelengths by length: the shortest is the anchor."""
        return tuple(int(i) for i in np.argsort(self.wavelengths_nm, kind="stable"))

    @property
    def half_wave_nm(self) -> float:
        return min(self.wavelengths_nm) / 2

    @property
    def samples(self) -> Samples:
        """Convert the phases to turns, anchor first."""
        rows = list(self.order)
        ratio = min(self.wavelengths_nm) / np.asarray(self.wavelengths_nm)[rows]
        turn = 2 * np.pi
        return Samples(self.phase_rad[rows] / turn, self.variance_rad2[rows] / turn**2, self.position, ratio)


class NoAgreementError(InputError):
    """The wavelengths agree on no height."""


@dataclass(frozen=True)
class OrderModel:
    """The order search and what was found on the way to it; ``fit`` is chi squared per degree of freedom across wavelengths,
    ``fits`` whether noise explains it everywhere.

    ``noise_factor`` corrects a guessed noise variance; ``phase_floor_rad2`` is phase variance that frame noise does not
    explain; ``sigma_rad`` and ``sigma_nm`` are medians with both taken in. ``common`` is what smooth errors may add beside.
    """

    search: OrderSearch
    phases: MeasuredPhases
    alignment: Alignment
    range_nm: float
    wrong_order_rate: float
    fit: float
    fits: bool
    noise_factor: float
    phase_floor_rad2: float
    sigma_rad: tuple[float, ...]
    sigma_nm: float
    common: CommonError | None
    warnings: tuple[Caution, ...]


def order_model(
    phases: MeasuredPhases,
    asked: float | tuple[float, float] | None,
    *,
    finest: bool = False,
    smooth: bool = True,
) -> OrderModel:
    """Set up the search for a range ``asked`` as a length, exact limits (low, high) in nm, or None for the default one.

    ``smooth`` errors between wavelengths are taken off where the phases do not fit without. Raises
    InputError where the wavelengths agree on no height.
    """
    planning.check_orders(phases.wavelengths_nm, asked)
    found = _searched(phases, asked)
    if smooth and not found.fits:
        found = _smoothed(found, asked)
    if found.fit.is_none:
        raise NoAgreementError(_no_agreement(found.fit))
    half, samples, phases = phases.half_wave_nm, found.phases.samples, found.phases
    range_nm, alignment = found.range_nm, found.alignment
    factor, floor, sigma = found.noise_factor, found.phase_floor_rad2, found.sigma_rad
    rate = planning.expected_wrong_order_rate(phases.wavelengths_nm, sigma, range_nm)
    # a height at an end of the range has a phase beyond it as often as not: its order must still be a candidate
    edge = min(_EDGE_SIGMA * sigma[phases.order[0]] / (2 * math.pi), 0.25) * half
    low = asked[0] if isinstance(asked, tuple) else alignment.centre_turns * half - range_nm / 2
    window = _window(alignment, half, (low - edge, range_nm + 2 * edge), rate)
    spread = factor * samples.variance + floor / (2 * np.pi) ** 2
    worth = (samples.ratio[:, None] ** 2 / spread)[: 1 if finest else None].sum(axis=0)
    margin = max(LEAST_MARGIN, planning.margin_needed(phases.wavelengths_nm, sigma, range_nm))
    if not found.fits and (rate > _HOPELESS or found.filled):
        margin = math.inf  # orders that fit among so many that do not, fit by chance: all are doubtful
    rivals = planning.rival_orders(phases.wavelengths_nm, sigma, range_nm)
    shared = floor / float(np.mean(np.square(sigma)))
    search = replace(_search(phases, alignment, window, finest=finest), bow_turns=found.bow_turns)
    sigma_nm = half / math.sqrt(median(worth))
    common = common_error(search, phases.position, sigma_nm, explained=found.alone is not None)
    return OrderModel(
        search=replace(search, margin_min=margin, rivals=rivals, shared=shared),
        phases=phases,
        alignment=alignment,
        range_nm=range_nm,
        wrong_order_rate=rate,
        fit=found.fit.misfit / factor + 1 - found.fit.expected,
        fits=found.fits,
        noise_factor=factor,
        phase_floor_rad2=floor,
        sigma_rad=sigma,
        sigma_nm=sigma_nm,
        common=common,
        warnings=(*_warnings(found, rate, asked), *_of_smooth_errors(found, common, sigma_nm)),
    )


@dataclass(frozen=True)
class _Found:
    """An alignment over a range, how well the wavelengths agree in it, and the noise that this makes of ``phases``.

    ``folded``: the heights filled half of this range, and may lie beyond it. ``bow_turns`` was taken off the phases;
    ``alone`` is the wavelength that has all of it, if one does.
    """

    phases: MeasuredPhases
    range_nm: float
    alignment: Alignment
    fit: Agreement
    folded: bool = False
    bow_turns: np.ndarray | None = None
    alone: int | None = None

    @property
    def fits(self) -> bool:
        """Tell whether noise, as far as it is known, explains what the wavelengths disagree."""
        return self.fit.worst / self.noise_factor < _MISFIT_TOLD and not self.fit.is_none

    @property
    def noise_factor(self) -> float:
        # three frames leave no residual, but what the wavelengths disagree is noise, exactly
        guessed = self.phases.noise_is_guessed and self.alignment.misfit > 0
        return min(self.alignment.misfit, _GUESSED_AT_MOST) if guessed else 1.0

    @property
    def phase_floor_rad2(self) -> float:
        """Estimate the phase variance beside frame noise (errors of steps, harmonics, wavelengths) from the misfit."""
        mean = float(np.mean(np.square(self.phases.sigma_rad)))
        if self.phases.noise_is_guessed:
            return mean * max(self.fit.excess - (_GUESSED_AT_MOST - 1), 0.0)
        excess = self.fit.excess if self.fit.worst >= _MISFIT_TOLD else self.alignment.misfit - 1
        scatter = math.sqrt(2 / max((len(self.phases.sigma_rad) - 1) * self.alignment.pixels, 1))
        return mean * excess if excess > 4 * scatter else 0.0

    @property
    def sigma_rad(self) -> tuple[float, ...]:
        return tuple(math.sqrt(self.noise_factor * s**2 + self.phase_floor_rad2) for s in self.phases.sigma_rad)

    @property
    def extent_nm(self) -> float:
        return (self.alignment.high_turns - self.alignment.low_turns) * self.phases.half_wave_nm

    @property
    def resolved_nm(self) -> float:
        return self.range_nm / 2 if self.folded else self.range_nm

    @property
    def filled(self) -> bool:
        return self.folded or self.extent_nm > _FILLED * self.range_nm


def _searched(phases: MeasuredPhases, asked: float | tuple[float, float] | None) -> _Found:
    """Align the phases over the range asked for, or over the default one as the data have it."""
    first = _aligned(phases, asked)
    return _within_reach(phases, first) if asked is None else first


def _smoothed(found: _Found, asked: float | tuple[float, float] | None) -> _Found:
    """Take smooth errors between the wavelengths off the phases, where that explains most of what they disagree."""
    if isinstance(asked, tuple):
        return found  # exact limits mean exact phases
    phases = found.phases
    loose = [math.hypot(s, 0.1) for s in phases.sigma_rad]
    short = planning.default_range_nm(phases.wavelengths_nm, loose)
    best = found
    for span in sorted({min(times * short, found.range_nm) for times in (1, 4, 12)}):
        if not best.fits:
            better = _without_smooth_errors(phases, asked, span)
            best = min(best, better, key=lambda one: one.fit.worst)
    explained = not best.fit.is_none and best.fit.worst < _EXPLAINED * found.fit.worst
    return best if explained and _can_be_told(best, short) else found


def _can_be_told(found: _Found, span_nm: float) -> bool:
    """Tell whether smooth errors are told from heights: two wavelengths tell only what is far below an order.

    With three a step between orders leaves more than one number; with two an error as large as it looks the same.
    """
    if len(found.phases.wavelengths_nm) > 2 or found.bow_turns is None:
        return True
    size = float(np.abs(_bow_rad(found)).max())
    return size < _TOLD_BY_TWO * planning.smallest_distance_rad(found.phases.wavelengths_nm, span_nm)


def _without_smooth_errors(phases: MeasuredPhases, asked: float | None, span_nm: float) -> _Found:
    """Take off the smooth errors that are found over a range of heights ``span_nm``, and search again."""
    samples, scale = phases.samples, max(phases.shape) / 2
    errors = smooth_errors(samples, search_orders(samples.ratio), span_nm / phases.half_wave_nm, scale)
    errors, alone = blamed(errors, samples, scale)
    turns = polynomial(errors, phases.position, scale)[np.argsort(phases.order)]
    found = _searched(replace(phases, phase_rad=phases.phase_rad - 2 * np.pi * turns), asked)
    degree = np.add.outer(*2 * (np.arange(errors.shape[1]),))
    return replace(found, bow_turns=errors / scale**degree, alone=None if alone is None else int(phases.order[alone]))


def _aligned(phases: MeasuredPhases, asked: float | tuple[float, float] | None) -> _Found:
    """Align the phases over the range that is asked for, or the default one."""
    half, samples = phases.half_wave_nm, phases.samples
    search = search_orders(samples.ratio)
    if isinstance(asked, tuple):
        range_nm, alignment = asked[1] - asked[0], _fixed(samples, asked[0] / half, asked[1] / half)
    else:
        range_nm = asked or planning.default_range_nm(phases.wavelengths_nm, phases.sigma_rad)
        alignment = align(samples, search, _ranges(phases, range_nm))
    return _Found(phases, range_nm, alignment, agreement(samples, search, alignment, range_nm / half))


def _within_reach(phases: MeasuredPhases, found: _Found) -> _Found:
    """Choose the default range anew where the phases have turned out worse than their noise, or the heights fill it.

    A range that is filled may have folded what lies beyond: over twice the range all pixels have another order to choose
    from, and say so where the phases do not tell them apart.
    """
    shorter = planning.default_range_nm(phases.wavelengths_nm, found.sigma_rad)
    if shorter < _SHORTER * found.range_nm:
        other = _aligned(phases, shorter)
        found = found if other.filled else other
    if found.extent_nm > _FOLDED * found.range_nm and 2 * found.range_nm < _FARTHEST_NM:
        return replace(found, range_nm=2 * found.range_nm, folded=True)
    return found


def _ranges(phases: MeasuredPhases, range_nm: float) -> Ranges:
    """Choose ranges to search while pistons are unknown (phases then err by more than noise), and for the common height."""
    waves, half = phases.wavelengths_nm, phases.half_wave_nm
    loose = [math.hypot(s, 0.1) for s in phases.sigma_rad]
    averaged = [s / 30 for s in phases.sigma_rad]  # pistons are means over about a thousand pixels
    robust = min(range_nm, planning.widest_range_nm(waves, loose, rate=1e-4))
    if robust <= half:  # one order tells nothing apart
        robust = min(range_nm, planning.default_range_nm(waves, loose))
    absolute = max(range_nm, planning.widest_range_nm(waves, averaged))
    return Ranges(range_nm / half, robust / half, absolute / half, _FARTHEST_NM / half)


def _fixed(samples: Samples, low: float, high: float) -> Alignment:
    """Align without pistons, as exact limits mean exact phases."""
    best = search_orders(samples.ratio)(samples.turns, samples.variance, low, high - low)[2]
    dof = max(len(samples.ratio) - 1, 1)
    keep = best <= max(30.0, 8 * median(best))
    zero = np.zeros(len(samples.ratio))
    misfit, worst = float(best[keep].mean()) / dof, worst_region(samples.position, best, dof)
    return Alignment(zero, np.zeros((len(zero), 2)), low, high, True, misfit, int(keep.sum()), worst_misfit=worst)


def _window(
    alignment: Alignment, half: float, full: tuple[float, float], rate: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Choose the whole window and the one to look at first, each (low, length) in nm.

    Where wrong orders are expected the whole range decides, as asked; otherwise looking farther than the data reach
    cannot change an order, and is left to the pixels that fit nowhere near.
    """
    extent = (alignment.high_turns - alignment.low_turns) * half
    margin = _MARGIN * extent + half
    near = (alignment.low_turns * half - margin, extent + 2 * margin)
    return full, full if rate > planning.ACCEPTED_RATE or near[1] >= full[1] else near


def _search(
    phases: MeasuredPhases,
    alignment: Alignment,
    window: tuple[tuple[float, float], tuple[float, float]],
    *,
    finest: bool,
) -> OrderSearch:
    (low, length), (near_low, near) = window
    height, width = phases.shape
    return OrderSearch(
        order=phases.order,
        ratio=phases.samples.ratio,
        half_wave_nm=phases.half_wave_nm,
        piston_turns=alignment.piston_turns,
        tilt_turns=alignment.tilt_turns,
        centre=((height - 1) / 2, (width - 1) / 2),
        low_nm=low,
        range_nm=length,
        near_low_nm=near_low,
        near_range_nm=near,
        misfit_max=float(2 * gammainccinv(max(len(phases.order) - 1, 1) / 2, _MISFIT_CHANCE)),
        finest=finest,
    )


def _no_agreement(fit: Agreement) -> str:
    return (
        f"the wavelengths agree on no height: their phases misfit {fit.misfit:.3g} times as much as noise would, unrelated "
        f"ones {fit.unrelated:.3g} times; check which frames belong to which wavelength, their order, the wavelengths and "
        "the steps"
    )


def _bow_rad(found: _Found) -> np.ndarray:
    """Compute the smooth errors at the pixels looked at, in rad, (L, P)."""
    assert found.bow_turns is not None
    turns = polynomial(found.bow_turns, found.phases.position, 1.0)
    return 2 * np.pi * np.asarray(turns - turns.mean(axis=1, keepdims=True))


def _taken_off_rad(found: _Found) -> np.ndarray:
    """Compute smooth errors and tilts at the pixels looked at, in rad, (L, P)."""
    planes = 2 * np.pi * found.alignment.tilt_turns @ (found.phases.position - found.phases.position.mean(axis=0)).T
    return planes if found.bow_turns is None else planes + _bow_rad(found)


def _warnings(found: _Found, rate: float, asked: float | tuple[float, float] | None) -> tuple[Caution, ...]:
    told = {}
    misfit = found.fit.misfit / found.noise_factor
    if misfit > _MISFIT_TOLD:
        told["wavelengths-disagree"] = (
            f"the wavelengths disagree {misfit:.3g} times as much as noise explains (chi squared per degree of freedom): "
            "sigma and flags allow for it; check the wavelengths, the order of the frames, the steps and the focus of each"
        )
    if rate > 1e-4:
        told["wrong-orders"] = (
            f"the phases leave {rate:.2g} of the fringe orders undecided over a range of {format_length(found.range_nm)}: "
            "such pixels are flagged as ambiguous; a shorter --range, more frames or more wavelengths help"
        )
    if asked is None and found.filled:
        told["range-filled"] = (
            f"the heights fill the whole range of {format_length(found.resolved_nm)} that these wavelengths resolve at this "
            "noise: larger ones fold over; give --range, lower the noise, or add a wavelength"
        )
    return tuple(Caution(name, text) for name, text in told.items())


def _of_smooth_errors(found: _Found, common: CommonError | None, sigma_nm: float) -> tuple[Caution, ...]:
    """Say which smooth errors between the wavelengths were taken off, and what of them is left in the height."""
    told = common is not None and common.largest_nm > sigma_nm
    if found.bow_turns is None and not told:
        return ()
    rest = f"wavelength {(found.alone or 0) + 1} alone explains them"
    if found.alone is None or told:
        rest = "what of them is common to all stays in the height"
        rest += f", where sigma allows for up to {common.largest_nm:.2g} nm" if common is not None else ""
    size = np.abs(_taken_off_rad(found)).max(axis=1)
    which = ", ".join(f"{value:.2g}" for value in size[np.argsort(found.phases.order)])
    text = (
        f"smooth phase errors between the wavelengths were found and taken off (up to {which} rad by wavelength): {rest}; "
        "check the focus of each wavelength, and whether the part moved"
    )
    return (Caution("smooth-errors-removed", text),)
