"""Set-up of the order search of a stack: range, pistons and tilts, extent of the heights, what the noise leaves open."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammainccinv

from cpikan.psi.calibration import planning
from cpikan.psi.calibration.alignment import Alignment, Ranges, Samples, align
from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.kernels.model import OrderSearch
from cpikan.psi.model.caution import Caution
from cpikan.units import format_length

_MISFIT_CHANCE = 1e-7  # a pixel this unlikely to be noise does not fit its order
_FARTHEST_NM = 131072.0  # float32 heights are spaced by 0.008 nm below it
_EDGE_SIGMA = 8.0  # noise of the anchor allowed for at the ends of the range; pixels differ in modulation
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


@dataclass(frozen=True)
class OrderModel:
    """The order search and what was found on the way to it.

    ``noise_factor`` corrects a guessed noise variance; ``phase_floor_rad2`` is phase variance that frame noise does not
    explain; ``sigma_rad`` and ``sigma_nm`` are medians with both taken in.
    """

    search: OrderSearch
    alignment: Alignment
    range_nm: float
    wrong_order_rate: float
    noise_factor: float
    phase_floor_rad2: float
    sigma_rad: tuple[float, ...]
    sigma_nm: float
    warnings: tuple[Caution, ...]


def order_model(
    phases: MeasuredPhases, asked: float | tuple[float, float] | None, *, finest: bool = False
) -> OrderModel:
    """Set up the search for a range ``asked`` as a length, exact limits (low, high) in nm, or None for the widest safe one."""
    half, samples = phases.half_wave_nm, phases.samples
    if isinstance(asked, tuple):
        range_nm, alignment = asked[1] - asked[0], _fixed(samples, asked[0] / half, asked[1] / half)
    else:
        range_nm = asked or planning.widest_range_nm(phases.wavelengths_nm, phases.sigma_rad)
        alignment = align(samples, search_orders(samples.ratio), _ranges(phases, range_nm))
    # three frames leave no residual, but what the wavelengths disagree is noise, exactly
    factor = alignment.misfit if phases.noise_is_guessed and alignment.misfit > 0 else 1.0
    floor = 0.0 if phases.noise_is_guessed else _phase_floor(alignment, phases.sigma_rad)
    sigma = tuple(math.sqrt(factor * s**2 + floor) for s in phases.sigma_rad)
    rate = planning.expected_wrong_order_rate(phases.wavelengths_nm, sigma, range_nm)
    # a height at an end of the range has a phase beyond it as often as not: its order must still be a candidate
    edge = min(_EDGE_SIGMA * sigma[phases.order[0]] / (2 * math.pi), 0.25) * half
    low = asked[0] if isinstance(asked, tuple) else alignment.centre_turns * half - range_nm / 2
    window = _window(alignment, half, (low - edge, range_nm + 2 * edge), rate)
    spread = factor * samples.variance + floor / (2 * np.pi) ** 2
    worth = (samples.ratio[:, None] ** 2 / spread)[: 1 if finest else None].sum(axis=0)
    return OrderModel(
        search=_search(phases, alignment, window, finest=finest),
        alignment=alignment,
        range_nm=range_nm,
        wrong_order_rate=rate,
        noise_factor=factor,
        phase_floor_rad2=floor,
        sigma_rad=sigma,
        sigma_nm=half / float(np.sqrt(np.median(worth))),
        warnings=_warnings(rate, range_nm, (alignment.high_turns - alignment.low_turns) * half, asked),
    )


def _ranges(phases: MeasuredPhases, range_nm: float) -> Ranges:
    """Choose ranges to search while pistons are unknown (phases then err by more than noise), and for the common height."""
    waves, half = phases.wavelengths_nm, phases.half_wave_nm
    loose = [math.hypot(s, 0.1) for s in phases.sigma_rad]
    averaged = [s / 30 for s in phases.sigma_rad]  # pistons are means over about a thousand pixels
    robust = min(range_nm, planning.widest_range_nm(waves, loose, rate=1e-4))
    absolute = max(range_nm, planning.widest_range_nm(waves, averaged))
    return Ranges(range_nm / half, robust / half, absolute / half, _FARTHEST_NM / half)


def _fixed(samples: Samples, low: float, high: float) -> Alignment:
    """Align without pistons, as exact limits mean exact phases."""
    best = search_orders(samples.ratio)(samples.turns, samples.variance, low, high - low)[2]
    dof = max(len(samples.ratio) - 1, 1)
    keep = best <= max(30.0, 8 * float(np.median(best)))
    zero = np.zeros(len(samples.ratio))
    misfit = float(best[keep].mean()) / dof
    return Alignment(zero, np.zeros((len(zero), 2)), low, high, True, misfit, int(keep.sum()))


def _phase_floor(alignment: Alignment, sigma_rad: tuple[float, ...]) -> float:
    """Estimate the phase variance beside frame noise (errors of steps, harmonics, wavelengths) from the misfit."""
    excess = alignment.misfit - 1.0
    scatter = math.sqrt(2 / max((len(sigma_rad) - 1) * alignment.pixels, 1))
    return float(np.mean(np.square(sigma_rad))) * excess if excess > 4 * scatter else 0.0


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


def _warnings(
    rate: float, range_nm: float, extent_nm: float, asked: float | tuple[float, float] | None
) -> tuple[Caution, ...]:
    found = {}
    if rate > 1e-4:
        found["wrong-orders"] = (
            f"expected wrong fringe orders: {rate:.2g} of the pixels over a range of {format_length(range_nm)} at this "
            "noise; a shorter --range, more frames or more wavelengths help"
        )
    if asked is None and extent_nm > 0.9 * range_nm:
        found["range-filled"] = (
            f"the heights fill the whole range of {format_length(range_nm)} that this noise allows: larger ones fold over; "
            "give --range, or lower the noise"
        )
    return tuple(Caution(name, text) for name, text in found.items())
