"""Least squares by blocks against the same written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.learning.strategies.block_band import BlockRows, folded, natural, solve_band


def dense(sets, blocks, width):
    rows, right = [], []
    for one in sets:
        for n, touched in enumerate(one.blocks.tolist()):
            out = torch.zeros(one.residual.shape[1], blocks, width, dtype=torch.float64)
            for number, block in enumerate(touched):
                out[:, block] += one.jacobian[n, number]
            rows.append(out.flatten(1))
            right.append(one.residual[n])
    return torch.linalg.lstsq(torch.cat(rows), -torch.cat(right)[:, None]).solution.reshape(blocks, width)


@settings(deadline=None, max_examples=40)
@given(
    blocks=st.integers(1, 9),
    width=st.integers(1, 5),
    more=st.integers(0, 4),
    ring=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_solution_is_that_of_the_whole_system(blocks, width, more, ring, seed):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    sets = [
        BlockRows(torch.arange(blocks)[:, None], drawn(blocks, 1, width + more, width), drawn(blocks, width + more))
    ]
    left = torch.arange(blocks if ring and blocks > 1 else blocks - 1)
    if len(left):
        right = (left + 1) % blocks
        sets.append(BlockRows(torch.stack([left, right], dim=1), drawn(len(left), 2, 2, width), drawn(len(left), 2)))
    order = (folded if ring else natural)(blocks)
    wanted = dense(sets, blocks, width)
    # drawn systems may be ill conditioned: QR loses the condition number times rounding
    torch.testing.assert_close(solve_band(sets, order), wanted, rtol=1e-7, atol=1e-7 * float(wanted.abs().max()))


@pytest.mark.parametrize("blocks", [1, 2, 3, 8, 9])
def test_a_folded_ring_keeps_neighbours_within_two_places(blocks):
    order = folded(blocks)
    assert sorted(order.tolist()) == list(range(blocks))
    for block in range(blocks):
        assert abs(int(order[block]) - int(order[(block + 1) % blocks])) <= 2
