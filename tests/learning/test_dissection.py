"""Nested dissection against the same least squares written out, and the work that it takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_block_band import dense

from cpikan.learning.strategies import dissection
from cpikan.learning.strategies.block_band import BlockRows
from cpikan.learning.strategies.dissection import solve_dissected


def grid_of(shape):
    """Places of a grid of blocks, and the pairs of neighbours."""
    places = torch.cartesian_prod(*[torch.arange(float(n), dtype=torch.float64) for n in shape]).reshape(-1, len(shape))
    numbers = torch.arange(len(places)).reshape(shape)
    pairs = [
        torch.stack([numbers.narrow(a, 0, n - 1).flatten(), numbers.narrow(a, 1, n - 1).flatten()], dim=1)
        for a, n in enumerate(shape)
    ]
    return places, torch.cat(pairs)


@settings(deadline=None, max_examples=30)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    width=st.integers(1, 4),
    ring=st.booleans(),
    window=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_solution_is_that_of_the_whole_system(shape, width, ring, window, seed):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*size):
        return torch.randn(*size, dtype=torch.float64, generator=generator)

    places, pairs = grid_of(shape)
    count = len(places)
    if ring and count > 2:
        pairs = torch.cat([pairs, torch.tensor([[count - 1, 0]])])
    sets = [BlockRows(torch.arange(count)[:, None], drawn(count, 1, width + 2, width), drawn(count, width + 2))]
    if len(pairs):
        sets.append(BlockRows(pairs, drawn(len(pairs), 2, 2, width), drawn(len(pairs), 2)))
    if window and count > 2:  # rows of three blocks
        triples = torch.stack([torch.randperm(count, generator=generator)[:3] for _ in range(4)])
        sets.append(BlockRows(triples, drawn(4, 3, 2, width), drawn(4, 2)))
    wanted = dense(sets, count, width)
    found = solve_dissected(sets, places)
    # drawn systems may be ill conditioned: QR loses the condition number times rounding
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7 * float(wanted.abs().max()))


def test_what_no_row_determines_stays_zero():
    places, pairs = grid_of([3, 1])
    jacobian = torch.zeros(3, 1, 4, 3, dtype=torch.float64)
    jacobian[:, 0, :2, :2] = torch.eye(2, dtype=torch.float64)  # nothing of the third coefficient
    sets = [BlockRows(torch.arange(3)[:, None], jacobian, torch.ones(3, 4, dtype=torch.float64))]
    sets.append(BlockRows(pairs, torch.zeros(2, 2, 1, 3, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)))
    for damping in (0.0, 1e-12):
        found = solve_dissected(sets, places, damping)
        assert found[:, 2].abs().max() == 0
        torch.testing.assert_close(found[:, :2], torch.full((3, 2), -1.0, dtype=torch.float64), rtol=1e-11, atol=0)


@pytest.mark.parametrize("axes", [1, 2])
def test_work_grows_as_the_separators_do(axes, monkeypatch):
    """Multiplications grow as N on a line and as N^1.5 in the plane, but for the blocks at the edge, which have fewer faces:
    an eighth of 16 and a half of 8 x 8, with a third fewer unknowns to eliminate."""
    work = []
    plain = dissection._triangle

    def counted(rows, needed):
        work[-1] += len(rows) * rows.shape[1] ** 2
        return plain(rows, needed)

    monkeypatch.setattr(dissection, "_triangle", counted)
    for side in {1: (16, 32), 2: (8, 16)}[axes]:
        places, pairs = grid_of([side] * axes)
        work.append(0)
        ones = torch.ones(len(places), 1, 2, 1, dtype=torch.float64)
        sets = [BlockRows(torch.arange(len(places))[:, None], ones, ones[:, 0, :, 0])]
        sets.append(BlockRows(pairs, torch.ones(len(pairs), 2, 1, 1).double(), torch.zeros(len(pairs), 1).double()))
        solve_dissected(sets, places)
    assert work[1] / work[0] <= {1: 2 * (1 + 1 / 8), 2: 4**1.5 * (1 + 1 / 6)}[axes]
