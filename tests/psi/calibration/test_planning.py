"""What wavelengths can resolve: the plan against published numbers, Monte Carlo, and a decoder that tries everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.psi.calibration.wavelengths import planning
from cpikan.psi.kernels.cpu import search_orders

TURN = 2 * np.pi
WAVES = (5000.0, 5500.0, 6050.0, 6655.0)
HALF = 2500.0
RANGE_NM = 27_000.0
SPAN = RANGE_NM / HALF


def ratio_of(waves: tuple[float, ...]) -> np.ndarray:
    """Shortest over each, shortest first."""
    return min(waves) / np.asarray(sorted(waves))


def noisy_turns(rng: np.random.Generator, waves: tuple[float, ...], height: np.ndarray, sigma_rad: float) -> np.ndarray:
    """Wrapped phases (L, P) in turns, shortest wavelength first; ``height`` in turns of the shortest."""
    turns = ratio_of(waves)[:, None] * height + rng.normal(0, sigma_rad / TURN, (len(waves), height.size))
    return turns - np.rint(turns)


def wrong_orders(turns: np.ndarray, order: np.ndarray, height: np.ndarray) -> np.ndarray:
    """The order is right when phase + order is the height but for noise, which never reaches half a turn here."""
    return np.abs(turns[0] + order - height) > 0.5


def compiled(waves: tuple[float, ...], turns: np.ndarray, sigma_rad: float, low: float, span: float) -> np.ndarray:
    variance = np.full(turns.shape, (sigma_rad / TURN) ** 2)
    return search_orders(ratio_of(waves))(turns, variance, low, span)[0]


def most_likely(waves: tuple[float, ...], turns: np.ndarray, low: float, span: float) -> np.ndarray:
    """Order of the first wavelength at the most likely height in [low, low + span], by trying every vector of orders.

    Along the height axis wavelength i changes its order where t_i + k + 1/2 = r_i h. Between two such breakpoints the
    orders are constant, so their middles visit every vector reachable in the range; for each the likelihood is a parabola,
    minimised exactly (and held inside the range). Equal noise on all phases.
    """
    ratio = ratio_of(waves)
    pixels = turns.shape[1]
    points = [np.full((1, pixels), low), np.full((1, pixels), low + span)]
    for t, r in zip(turns, ratio, strict=True):
        first = np.floor(low * r - t - 0.5)
        edges = (t + first + 0.5 + np.arange(math.ceil(span * r) + 2)[:, None]) / r
        points.append(np.clip(edges, low, low + span))
    ends = np.sort(np.concatenate(points), axis=0)
    middle = (ends[1:] + ends[:-1]) / 2
    orders = np.rint(ratio[:, None, None] * middle - turns[:, None])
    unwrapped = turns[:, None] + orders
    best = np.tensordot(ratio, unwrapped, 1) / (ratio @ ratio)
    best = np.clip(best, low, low + span)
    cost = ((unwrapped - ratio[:, None, None] * best) ** 2).sum(axis=0)
    winner = np.argmin(cost, axis=0)
    return np.take_along_axis(orders[0], winner[None], 0)[0]


def test_the_decoder_that_tries_everything_finds_the_least_of_a_fine_scan() -> None:
    """The oracle itself, against a scan of heights: no height of the range is more likely than the one found."""
    rng = np.random.default_rng(3)
    height = rng.uniform(0, SPAN, 150)
    turns = noisy_turns(rng, WAVES, height, 0.35)
    order = most_likely(WAVES, turns, 0.0, SPAN)
    scan = np.linspace(0, SPAN, 20_001)
    residual = turns[:, None] - ratio_of(WAVES)[:, None, None] * scan[:, None]
    cost = ((residual - np.rint(residual)) ** 2).sum(axis=0)
    found = scan[np.argmin(cost, axis=0)]
    scanned = np.rint(found - turns[0])
    # the scan is spaced by 5.4e-4 turns: it misjudges the least by (5.4e-4)^2, so only ties may differ
    assert (scanned != order).mean() < 0.01


@pytest.mark.parametrize("sigma_rad", [0.2, 0.25, 0.3, 0.35])
def test_orders_are_as_good_as_maximum_likelihood(sigma_rad: float) -> None:
    """On the same phases the share of wrong orders is within 5 % of the best there is (heights inside the range)."""
    rng = np.random.default_rng(17)
    ours = best = 0
    for _ in range(8 if sigma_rad < 0.25 else 2):
        height = rng.uniform(0.5, SPAN - 0.5, 100_000)
        turns = noisy_turns(rng, WAVES, height, sigma_rad)
        ours += int(wrong_orders(turns, compiled(WAVES, turns, sigma_rad, 0.0, SPAN), height).sum())
        best += int(wrong_orders(turns, most_likely(WAVES, turns, 0.0, SPAN), height).sum())
    assert best > 400  # enough of them for a comparison
    assert ours <= 1.05 * best


def test_no_order_is_wrong_in_ten_million_at_a_tenth_of_a_radian() -> None:
    rng = np.random.default_rng(18)
    wrong = 0
    for _ in range(10):
        height = rng.uniform(0.5, SPAN - 0.5, 1_000_000)
        turns = noisy_turns(rng, WAVES, height, 0.1)
        wrong += int(wrong_orders(turns, compiled(WAVES, turns, 0.1, 0.0, SPAN), height).sum())
    # the union bound says 3e-11 a pixel: 3e-4 expected
    assert wrong == 0


# two wavelengths at the end of their unambiguous range of 9.26 um, then the table of the literature study:
# wavelengths in nm, range in um, d_min in rad, {sigma: (bound, Monte Carlo)}
TABLE = [
    ((632.8, 611.9), 9.2, 0.041, {0.03: (0.5, None)}),
    ((632.8, 611.9, 532.1), 9.0, 0.493, {0.03: (2e-16, 0.0), 0.1: (1.4e-2, 1.7e-3), 0.2: (0.34, 8.6e-2)}),
    ((660.0, 640.0, 532.0, 488.0), 20.0, 0.967, {0.03: (2e-58, 0.0), 0.1: (1.5e-6, 0.0), 0.2: (3.1e-2, 1.5e-2)}),
    (
        WAVES,
        27.5,
        1.329,
        {0.03: (9e-109, 0.0), 0.1: (3e-11, 0.0), 0.2: (8.9e-4, 8.1e-4)},
    ),  # eleven orders: none eleven apart
    (WAVES, 100.0, 0.598, {0.03: (2e-23, 0.0), 0.1: (2.8e-3, 2.2e-3), 0.2: (0.14, 9.7e-2)}),
]


@pytest.mark.parametrize(("waves", "range_um", "distance", "rates"), TABLE)
def test_smallest_distance_is_that_of_the_table(
    waves: tuple[float, ...], range_um: float, distance: float, rates: dict[float, tuple[float, float | None]]
) -> None:
    assert planning.smallest_distance_rad(waves, range_um * 1e3) == pytest.approx(distance, abs=0.0006)


@pytest.mark.parametrize(("waves", "range_um", "distance", "rates"), TABLE)
def test_rate_is_that_of_the_table_and_above_monte_carlo(
    waves: tuple[float, ...], range_um: float, distance: float, rates: dict[float, tuple[float, float | None]]
) -> None:
    rng = np.random.default_rng(5)
    for sigma, (bound, measured) in rates.items():
        got = planning.expected_wrong_order_rate(waves, [sigma] * len(waves), range_um * 1e3)
        assert got > 0.9 * bound
        span = range_um * 1e3 / (min(waves) / 2)
        height = rng.uniform(0.5, span - 0.5, 20_000)
        turns = noisy_turns(rng, waves, height, sigma)
        wrong = wrong_orders(turns, compiled(waves, turns, sigma, 0.0, span), height).mean()
        # the bound holds within the scatter of 20 000 trials
        assert wrong <= got + 4 * math.sqrt(max(got, 1e-9) / 20_000)
        if measured is not None:
            assert wrong == pytest.approx(measured, rel=0.15, abs=4 * math.sqrt((measured + 1e-9) / 20_000) + 1e-5)


def test_the_bound_is_close_where_errors_are_rare() -> None:
    """A plan that is far too cautious would be as useless as one that is wrong."""
    rng = np.random.default_rng(6)
    height = rng.uniform(0.5, SPAN - 0.5, 1_000_000)
    turns = noisy_turns(rng, WAVES, height, 0.18)
    wrong = wrong_orders(turns, compiled(WAVES, turns, 0.18, 0.0, SPAN), height).mean()
    got = planning.expected_wrong_order_rate(WAVES, [0.18] * 4, RANGE_NM)
    assert 0.5 * got < wrong < 1.05 * got


@given(
    st.lists(st.floats(400, 7000), min_size=2, max_size=5, unique=True).filter(lambda w: min(np.diff(sorted(w))) > 1),
    st.floats(0.005, 0.3),
    st.floats(1.1, 3.0),
)
@settings(max_examples=40, deadline=None)
def test_widest_range_keeps_the_rate_and_shrinks_with_noise(waves: list[float], sigma: float, more: float) -> None:
    def widest(noise: float, rate: float = planning.ACCEPTED_RATE) -> float:
        return planning.widest_range_nm(waves, [noise] * len(waves), rate, 1e6)

    found = widest(sigma)
    half = min(waves) / 2
    assert found >= half * (1 - 1e-8)
    assert widest(sigma * more) <= found
    assert widest(sigma, 1e-3) >= found
    if found > half:
        assert planning.expected_wrong_order_rate(waves, [sigma] * len(waves), found) < planning.ACCEPTED_RATE
    if found < 1e6 - half:
        assert planning.expected_wrong_order_rate(waves, [sigma] * len(waves), found + 1.001 * half) >= (
            planning.ACCEPTED_RATE
        )


def test_one_order_needs_no_decision() -> None:
    assert planning.expected_wrong_order_rate(WAVES, [3.0] * 4, 2400.0) == 0
    assert planning.smallest_distance_rad(WAVES, 2400.0) == math.inf


def test_distance_with_unequal_noise_is_the_mahalanobis_distance() -> None:
    """Against a plain projection: differences of orders, whitened, without their component along the height."""
    sigma = np.array([0.02, 0.05, 0.03, 0.08])
    ratio = ratio_of(WAVES)
    found = planning.squared_distances(WAVES, sigma, 30)
    for j in range(1, 31):
        gap = TURN * (j * ratio - np.rint(j * ratio)) / sigma
        along = ratio / sigma
        rest = gap - along * (gap @ along) / (along @ along)
        assert found[j - 1] == pytest.approx(rest @ rest)


@pytest.mark.parametrize(("waves", "repeat_nm"), [((5000.0, 5500.0), 27_500.0), ((633.0, 612.0), 204 * 316.5)])
def test_a_range_of_just_the_repeat_length_holds_no_two_orders_that_look_the_same(waves, repeat_nm):
    sigma = (1e-3, 1e-3)
    below, at, above = (planning.expected_wrong_order_rate(waves, sigma, repeat_nm * (1 + e)) for e in (-1e-6, 0, 1e-6))
    assert at == below < 1e-3
    assert above == 1.0
    assert (
        planning.smallest_distance_rad(waves, repeat_nm) > 1e-3 > planning.smallest_distance_rad(waves, repeat_nm + 1)
    )
    apart = round(repeat_nm / (min(waves) / 2))
    assert apart not in planning.rival_orders(waves, sigma, repeat_nm)
    assert apart in planning.rival_orders(waves, sigma, repeat_nm + 1)
