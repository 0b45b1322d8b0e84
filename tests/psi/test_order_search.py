"""Orders that continue the row before are those that the search of all orders finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.psi.kernels.arguments import Quality, Search, Waves, pack_search
from cpikan.psi.kernels.cpu_search import find_orders, search_buffers
from cpikan.psi.kernels.model import OrderSearch
from cpikan.psi.kernels.order_distance import square_distance

N = 512
RATIO = np.array([1.0, 0.912, 0.77])
ORDERS, FIRST = 14, -3


def packed(near: tuple[int, int], margin: float, misfit_max: float) -> Search:
    """A search of ``near`` = (first, count) orders before all, in turns of the anchor."""
    return pack_search(
        OrderSearch(
            order=(0, 1, 2), ratio=RATIO, half_wave_nm=1.0, piston_turns=np.zeros(3), tilt_turns=np.zeros((3, 2)),
            centre=(0.0, 0.0), low_nm=-20.0, range_nm=40.0, near_low_nm=float(near[0]), near_range_nm=float(near[1]),
            misfit_max=misfit_max, margin_min=margin,
        )
    )  # fmt: skip


def found_by(
    every: bool, phases: np.ndarray, weight: np.ndarray, last: np.ndarray, model: Search
) -> dict[str, np.ndarray]:
    """Orders of a block, and whether a runner-up is within the margin."""
    full = np.full(2048, 1.0, np.float32)
    quality = Quality(full, full, 0 * full, 0 * full, full)
    found, aside, _ = search_buffers(3, 2048)
    waves = Waves(np.zeros((3, 2048), np.float32), np.ones((3, 2048), np.float32))
    waves.phase_cycles[:, :N], waves.weight[:, :N] = phases, weight
    find_orders(waves, model, quality, np.float32(0.5), every, last, found, aside, N)
    parts = {name: getattr(found, name)[:N].copy() for name in ("variance", "order", "shift", "best")}
    return parts | {"doubtful": found.second[:N] - found.best[:N] < model.margin_min}


@given(
    st.integers(0, 2**31),
    st.floats(0.002, 0.15),  # cycles, from one that leaves no doubt to one that leaves nothing else
    st.sampled_from([0.0, 4.0, 60.0]),
    st.sampled_from([12.0, 1e30]),
)
def test_orders_beside_the_row_before_are_those_of_the_whole_search(seed, noise, margin, misfit_max):
    rng = np.random.default_rng(seed)
    heights = rng.uniform(FIRST + 0.5, FIRST + ORDERS - 0.5, N)
    heights[::37] += ORDERS  # beyond the near range
    sigma = noise * rng.choice([0.5, 1.0, 2.0], (3, N))
    phases = heights * RATIO[:, None] + sigma * rng.standard_normal((3, N))
    phases = (phases - np.rint(phases)).astype(np.float32)
    weight = (sigma**-2).astype(np.float32)
    weight[0, 5], phases[1, 7] = np.nan, np.nan
    last = (heights + rng.normal(0, 0.3, N) + rng.choice([0, 0, 0, 1, -2], N)).astype(np.float32)
    last[::11] = np.nan
    model = packed((FIRST, ORDERS), margin, misfit_max)
    plain, quick = (found_by(every, phases, weight, last, model) for every in (True, False))
    for name in plain:
        np.testing.assert_array_equal(quick[name], plain[name], err_msg=name)


def test_what_continues_is_not_searched():
    """Otherwise the test above compares a search with itself: pixels without doubt have no runner-up."""
    heights = np.linspace(0.2, 8.7, N)
    phases = heights * RATIO[:, None]
    phases = (phases - np.rint(phases)).astype(np.float32)
    weight, model = np.full((3, N), 1e6, np.float32), packed((FIRST, ORDERS), 9.0, 50.0)
    full = np.full(2048, 1.0, np.float32)
    found, aside, _ = search_buffers(3, 2048)
    waves = Waves(np.zeros((3, 2048), np.float32), np.ones((3, 2048), np.float32))
    waves.phase_cycles[:, :N], waves.weight[:, :N] = phases, weight
    last = heights.astype(np.float32)
    last[100] = np.nan
    find_orders(
        waves, model, Quality(full, full, 0 * full, 0 * full, full), np.float32(0.5), False, last, found, aside, N
    )
    assert (found.second[:N] < 1e29).nonzero()[0].tolist() == [100]


@pytest.mark.parametrize("orders", [2, 5, 12])
@pytest.mark.parametrize("ratio", [(1, 0.91), (1, 0.826, 0.7513), (1, 0.95, 0.88, 0.61)])
def test_distance_of_orders_is_the_least_over_all_heights(ratio, orders):
    t = np.linspace(-1, orders + 2, 300_001)  # a step of 4e-5: the parabolas' rise within half a step is below 1e-8
    wrapped = sum((t * b - np.rint(t * b)) ** 2 for b in ratio[1:])
    least = min(float((wrapped + (t - d) ** 2).min()) for d in range(1, orders))
    found = square_distance(np.array(ratio), orders)
    assert found <= least <= found + 1e-8


def test_one_order_has_no_other():
    assert square_distance(np.array([1.0, 0.9]), 1) == np.inf


def test_orders_that_look_alike_have_no_distance():
    # six and seven turns of the other wavelengths: all phases are what they were
    assert square_distance(np.array([1.0, 6 / 8, 7 / 8]), 9) == pytest.approx(0.0, abs=1e-24)
