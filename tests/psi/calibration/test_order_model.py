"""Several wavelengths: ranges by default, what noise leaves open, and phases that disagree."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.psi.calibration.wavelengths import planning
from cpikan.psi.calibration.wavelengths.order_model import MeasuredPhases, OrderModel, order_model
from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.kernels.model import LEAST_MARGIN

TURN = 2 * np.pi
SHAPE = (400, 500)
PAIRS = [
    (632.8, 650.0),
    (543.5, 632.8),
    (532.0, 632.8),
    (780.0, 785.0),
    (405.0, 532.0),
    (532.0, 1064.0),
    (633.0, 635.0),
    (660.0, 640.0),
    (488.0, 514.5),
    (1064.0, 1550.0),
    (611.9, 632.8),
    (445.0, 520.0),
    (1310.0, 1550.0),
    (594.1, 612.0),
    (850.0, 852.0),
]


def places(rng: np.random.Generator, pixels: int) -> np.ndarray:
    return (rng.uniform(0, 1, (pixels, 2)) - 0.5) * SHAPE


def phases_of(
    waves: tuple[float, ...],
    height_nm: np.ndarray,
    sigma_rad: float,
    position: np.ndarray,
    error_rad: np.ndarray | float = 0.0,
    seed: int = 1,
) -> MeasuredPhases:
    """Wrapped phases of ``height_nm`` (P,), with noise and with ``error_rad`` (L, P) beside it."""
    rng = np.random.default_rng(seed)
    clean = 4 * np.pi * height_nm / np.array(waves)[:, None] + error_rad
    phase = np.angle(np.exp(1j * (clean + rng.normal(0, sigma_rad, clean.shape))))
    variance = np.full(phase.shape, sigma_rad**2)
    return MeasuredPhases(waves, phase, variance, position, SHAPE, (sigma_rad,) * len(waves), False)


def bowl(position: np.ndarray, extent_nm: float) -> np.ndarray:
    y, x = (2 * position / SHAPE).T
    form = x * x + 0.6 * y * y + 0.3 * x
    return extent_nm * ((form - form.min()) / np.ptp(form) - 0.5)


def decoded(phases: MeasuredPhases, found: OrderModel) -> tuple[np.ndarray, np.ndarray]:
    """Heights in nm as the pixel pass makes them, and which are flagged."""
    search, samples, half = found.search, phases.samples, phases.half_wave_nm
    samples = found.phases.samples  # smooth errors are off them
    turns = samples.turns - search.piston_turns[:, None] - search.tilt_turns @ samples.position.T
    variance = found.noise_factor * samples.variance + found.phase_floor_rad2 / TURN**2
    order, shift, best, second = search_orders(samples.ratio)(
        turns, variance, search.low_nm / half, search.range_nm / half
    )
    flagged = (second - best < search.margin_min) | (best > search.misfit_max)
    return (turns[0] + order + shift) * half, flagged


def wrong(phases: MeasuredPhases, found: OrderModel, height_nm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels are off by more than a quarter wave, and which are flagged."""
    height, flagged = decoded(phases, found)
    error = height - height_nm
    known = ~flagged if (~flagged).any() else np.ones_like(flagged)
    return np.abs(error - np.median(error[known])) > phases.half_wave_nm / 2, flagged


# every pair at one noise, three pairs at all
SIGMAS = (0.01, 0.03, 0.1)
CASES = sorted({*((n, SIGMAS[n % 3]) for n in range(len(PAIRS))), *((n, sigma) for n in range(3) for sigma in SIGMAS)})


@pytest.mark.parametrize(("waves", "sigma_rad"), [(PAIRS[n], sigma) for n, sigma in CASES])
def test_two_lasers_have_a_range_and_no_wrong_order_without_a_flag(
    waves: tuple[float, float], sigma_rad: float
) -> None:
    rng = np.random.default_rng(5)
    position = places(rng, 20_000)
    range_nm = planning.default_range_nm(waves, (sigma_rad,) * 2)
    beat_nm = waves[0] * waves[1] / abs(waves[0] - waves[1]) / 2
    assert range_nm >= min(beat_nm - min(waves) / 2, 2 * beat_nm) * 0.999
    height = bowl(position, 0.7 * range_nm)
    phases = phases_of(waves, height, sigma_rad, position)
    found = order_model(phases, None)
    assert found.range_nm >= range_nm * 0.89
    bad, flagged = wrong(phases, found, height)
    assert (bad & ~flagged).sum() == 0  # one in a million of 20 000 pixels
    undecided = found.wrong_order_rate > 1e-4
    assert undecided == ("wrong-orders" in [one.name for one in found.warnings])
    assert undecided or flagged.mean() < 5e-3


def test_heights_beyond_the_range_are_said_and_flagged() -> None:
    waves, sigma = (532.0, 561.0), 0.03
    position = places(np.random.default_rng(6), 9000)
    range_nm = planning.default_range_nm(waves, (sigma,) * 2)
    height = bowl(position, 1.6 * range_nm)
    phases = phases_of(waves, height, sigma, position)
    found = order_model(phases, None)
    bad, flagged = wrong(phases, found, height)
    assert "range-filled" in [one.name for one in found.warnings]
    assert (bad & ~flagged).mean() < 1e-3


def test_the_margin_keeps_wrong_orders_that_are_not_flagged_below_the_rate() -> None:
    """Monte Carlo of a million pixels of two close lasers, at a rate that it can see."""
    waves, sigma, rate = (594.1, 640.0), 0.06, 1e-4
    range_nm = planning.default_range_nm(waves, (sigma,) * 2)
    margin = planning.margin_needed(waves, (sigma,) * 2, range_nm, rate)
    assert margin > LEAST_MARGIN
    rng = np.random.default_rng(7)
    ratio, half = min(waves) / np.array(waves), min(waves) / 2
    span = range_nm / half
    height = rng.uniform(1, span - 1, 10**6)
    turns = ratio[:, None] * height + rng.normal(0, sigma / TURN, (2, height.size))
    turns -= np.rint(turns)
    order, _, best, second = search_orders(ratio)(turns, np.full(turns.shape, (sigma / TURN) ** 2), 0.0, span)
    quiet = (np.abs(turns[0] + order - height) > 0.5) & (second - best >= margin)
    assert 0 < quiet.mean() < 1.3 * rate  # 100 of them expected at most: three standard errors


def test_disagreement_enters_sigma_flags_and_the_rate() -> None:
    """Phase errors of 0.25 rad that follow nothing smooth, at a noise of 0.01 rad: far more than a misfit of 1."""
    waves, sigma = (612.0, 633.0, 680.0), 0.01
    rng = np.random.default_rng(8)
    position = places(rng, 9000)
    height = bowl(position, 6000.0)
    error = 0.25 * np.sign(np.sin(0.9 * position[:, 0]) * np.sin(0.7 * position[:, 1])) * np.array([[0], [1], [0]])
    phases = phases_of(waves, height, sigma, position, error)
    found = order_model(phases, None)
    assert found.fit > 5
    assert "wavelengths-disagree" in [one.name for one in found.warnings]
    assert max(found.sigma_rad) > 0.08
    bad, flagged = wrong(phases, found, height)
    assert (bad & ~flagged).mean() < 1e-3


def test_noise_alone_fits() -> None:
    position = places(np.random.default_rng(9), 9000)
    for waves, sigma in (((612.0, 633.0, 680.0), 0.05), ((850.0, 852.0), 0.03), ((5000.0, 5600.0), 0.02)):
        found = order_model(phases_of(waves, bowl(position, 800.0), sigma, position), None)
        assert found.fit == pytest.approx(1, abs=0.15)  # the misfit expected where orders are close is drawn to 4 %
        assert found.phase_floor_rad2 == 0


def test_unrelated_phases_are_refused() -> None:
    rng = np.random.default_rng(10)
    position, waves = places(rng, 6000), (5200.0, 5700.0, 6300.0)
    phases = phases_of(waves, np.zeros(6000), 0.01, position, rng.uniform(-3, 3, (3, 6000)))
    with pytest.raises(InputError, match="agree on no height"):
        order_model(phases, 30_000.0)


@pytest.mark.parametrize("piston_rad", [0.0, 0.9])
@pytest.mark.parametrize(("waves", "size_rad"), [((611.9, 632.8, 670.0), 0.4), ((5100.0, 5600.0, 6200.0, 6900.0), 1.5)])
def test_smooth_errors_between_wavelengths_are_taken_off(
    waves: tuple[float, ...], size_rad: float, piston_rad: float
) -> None:
    """Defocus and astigmatism of one wavelength, on a bowl with a step: orders right, the fit that of noise."""
    sigma = 0.02
    position = places(np.random.default_rng(11), 4500)
    y, x = (2 * position / SHAPE).T
    height = bowl(position, 10 * min(waves)) + 2.3 * min(waves) * (np.abs(x - 0.1) < 0.3)
    error = np.zeros((len(waves), 4500))
    error[1] = size_rad * (x * x + y * y) - 0.5 * size_rad * x * y + piston_rad
    phases = phases_of(waves, height, sigma, position, error)
    found = order_model(phases, None)
    assert [one.name for one in found.warnings] == ["smooth-errors-removed"]
    assert found.fit < 1.3
    bad, flagged = wrong(phases, found, height)
    assert bad.mean() < 1e-3
    assert flagged.mean() < 1e-3
    pixels = np.zeros((2, 0)) if found.search.bow_turns is None else (position + (np.array(SHAPE) - 1) / 2).T
    taken = found.search.relative_turns(*pixels)[np.argsort(phases.order)] * TURN - error
    taken -= taken.mean(axis=1, keepdims=True)
    ratio = min(waves) / np.array(waves)
    apart = taken - np.outer(ratio, ratio @ taken / (ratio @ ratio))  # what is common to all is height
    assert np.sqrt((apart**2).mean()) < 0.2 * sigma  # 4500 pixels, 14 terms of three wavelengths: 10 % of the noise


@pytest.mark.parametrize("coma", [0.0, 1.0])
def test_smooth_errors_of_one_wavelength_alone_leave_nothing_in_the_height(coma: float) -> None:
    """With three wavelengths the one at fault has a pattern of its own; a tilt that belongs to the error goes with it."""
    waves, sigma = (610.0, 637.0, 655.0), 0.015
    position = places(np.random.default_rng(12), 9000)
    y, x = (2 * position / SHAPE).T
    error = np.zeros((3, 9000))
    error[2] = 0.35 * (x * x + y * y) + coma * 0.1 * (3 * (x * x + y * y) - 2) * x
    phases = phases_of(waves, bowl(position, 9000.0), sigma, position, error)
    found = order_model(phases, None)
    assert [one.name for one in found.warnings] == ["smooth-errors-removed"]
    assert "wavelength 3 alone explains them" in found.warnings[0].text
    taken = found.search.relative_turns(*(position + (np.array(SHAPE) - 1) / 2).T)[np.argsort(phases.order)] * TURN
    left = taken - error
    left -= left.mean(axis=1, keepdims=True)
    assert (
        np.sqrt((left**2).mean()) < 0.3 * sigma
    )  # the common part rests on one wavelength, not on differences of three


def test_smooth_errors_of_two_wavelengths_are_laid_on_none() -> None:
    waves = (610.0, 637.0, 655.0)
    position = places(np.random.default_rng(13), 9000)
    y, x = (2 * position / SHAPE).T
    error = np.stack([0.3 * (x * x + y * y), np.zeros(9000), 0.3 * x * y])
    found = order_model(phases_of(waves, bowl(position, 9000.0), 0.015, position, error), None)
    assert [one.name for one in found.warnings] == ["smooth-errors-removed"]
    assert "common to all stays in the height" in found.warnings[0].text


@pytest.mark.parametrize("size_rad", [0.3, 0.7, 2.0])
def test_phases_that_disagree_without_a_reason_leave_no_pixel_sure(size_rad: float) -> None:
    """Errors of one wavelength that follow nothing, at a noise of 0.01 rad: what fits among so many orders fits by chance."""
    waves = (5000.0, 5500.0, 6050.0, 6655.0)
    rng = np.random.default_rng(14)
    position = places(rng, 6000)
    height = bowl(position, 60_000.0)
    error = np.zeros((4, 6000))
    error[3] = rng.normal(0, size_rad, 6000)
    phases = phases_of(waves, height, 0.01, position, error)
    found = order_model(phases, None, smooth=False)
    assert "wavelengths-disagree" in [one.name for one in found.warnings]
    bad, flagged = wrong(phases, found, height)
    assert bad.mean() > 0.2
    assert not (bad & ~flagged).any()
