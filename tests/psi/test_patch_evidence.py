"""Neighbours clear a pixel's doubt only where the phases of the patch do."""

from __future__ import annotations

import numpy as np

from cpikan.psi.calibration.wavelengths import planning
from cpikan.psi.kernels.arguments import Search, pack_search
from cpikan.psi.kernels.model import DemodulatedRows, HeightRows, OrderSearch, empty_rows
from cpikan.psi.model.flags import Flag
from cpikan.psi.refine.orders import OrderChoice, form_heights
from cpikan.psi.refine.patch_evidence import fill_gaps, least_gap

WAVES = (640.0, 668.0)
SIGMA_RAD = 0.05
SHAPE = (48, 56)
RATIO = 640.0 / np.array(WAVES)


def search_of(shared: float = 0.0) -> Search:
    range_nm = planning.default_range_nm(WAVES, (SIGMA_RAD,) * 2)
    rivals = planning.rival_orders(WAVES, (SIGMA_RAD,) * 2, range_nm)
    plane = np.zeros(2), np.zeros((2, 2)), (0.0, 0.0)
    window = (-range_nm / 2, range_nm) * 2
    model = OrderSearch((0, 1), RATIO, 320.0, *plane, *window, 30.0, margin_min=24.0, rivals=rivals, shared=shared)
    return pack_search(model)


def rows_of(rng: np.random.Generator) -> tuple[DemodulatedRows, np.ndarray]:
    """A gentle slope with noise that single pixels cannot resolve, all flagged; and the right orders."""
    y, x = np.indices(SHAPE)
    height = 0.02 * x + 0.01 * y
    turns = RATIO[:, None, None] * height + rng.normal(0, SIGMA_RAD / (2 * np.pi), (2, *SHAPE))
    phase = (turns - np.rint(turns)).astype(np.float32)
    weight = np.full(phase.shape, (2 * np.pi / SIGMA_RAD) ** 2, np.float32)
    order = np.rint(height - phase[0]).astype(np.float32)
    zero = np.zeros(SHAPE, np.float32)
    flags = np.full(SHAPE, int(Flag.AMBIGUOUS), np.uint8)
    return DemodulatedRows(phase, weight, order, zero, zero, zero, zero, zero, flags), order


def flagged_after(rows: DemodulatedRows, order: np.ndarray, search: Search) -> np.ndarray:
    """What form_heights flags of a choice that votes have made sure of."""
    sure = np.full(SHAPE, 100, np.float32)
    choice = OrderChoice(order, np.zeros(SHAPE, np.float32), sure, np.ones(SHAPE, bool))
    out = HeightRows(*empty_rows(*SHAPE))
    for part in (slice(0, 16), slice(16, SHAPE[0])):
        mine = HeightRows(*(a[part] for a in out))
        form_heights(rows, choice, search, part, mine)
    return (out.flags & int(Flag.AMBIGUOUS)) != 0


def test_a_patch_that_moved_together_keeps_its_flags() -> None:
    rows, order = rows_of(np.random.default_rng(1))
    moved = order.copy()
    moved[12:30, 20:40] += 1
    flagged = flagged_after(rows, moved, search_of())
    assert flagged[12:30, 20:40].all()
    right = np.ones(SHAPE, bool)
    right[9:33, 17:43] = False
    assert flagged[right].mean() < 0.02


def test_errors_that_the_patch_shares_count_once() -> None:
    rows, order = rows_of(np.random.default_rng(2))
    assert flagged_after(rows, order, search_of()).mean() < 0.05
    assert flagged_after(rows, order, search_of(shared=0.9)).all()


def test_the_least_gap_is_that_of_plain_sums() -> None:
    rows, order = rows_of(np.random.default_rng(3))
    rows.flags[20:24, 30:33] = int(Flag.INVALID)
    search = search_of(shared=0.1)
    heights, gaps = np.empty(SHAPE, np.float32), np.zeros((len(search.rivals), *SHAPE), np.float32)
    fill_gaps(rows, order, search, 0, heights, gaps)

    def misfit(k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weight = rows.weight.astype(float)
        left = rows.phase_cycles[1] - (rows.phase_cycles[0] + k) * RATIO[1]
        left = left - np.rint(left)
        total = weight[0] + weight[1] * RATIO[1] ** 2
        slope = weight[1] * RATIO[1] * left
        return weight[1] * left**2 - slope**2 / total, rows.phase_cycles[0] + k + slope / total

    own, level = misfit(order)
    valid = rows.flags == int(Flag.AMBIGUOUS)
    for y, x in ((25, 31), (0, 0), (40, 55)):
        near = np.zeros(SHAPE, bool)
        near[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = True
        near &= valid & (np.abs(level - level[y, x]) < 0.5)
        sums = [(misfit(order + step)[0] - own)[near].sum() for step in search.rivals]
        expected = min(sums) / (1 + (near.sum() - 1) * 0.1)
        assert (
            abs(least_gap(heights, gaps, y, x, search.shared) - expected) < 0.02
        )  # float32 sums of 49 numbers near 10
