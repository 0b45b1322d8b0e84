"""The elimination by several processes: the same solution, and bytes that go with what lies between the shares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_block_band import dense
from test_dissection import grid_of

from cpikan.learning.share import Share
from cpikan.learning.strategies.block_band import BlockRows
from cpikan.learning.strategies.shared_dissection import solve_shared
from thread_ranks import together


def drawn(shape, width, seed=0, window=False):
    """Sets of rows of a grid of blocks, of each block, of neighbours, and of four blocks each."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*size):
        return torch.randn(*size, dtype=torch.float64, generator=generator)

    places, pairs = grid_of(shape)
    count = len(places)
    sets = [BlockRows(torch.arange(count)[:, None], numbers(count, 1, width + 2, width), numbers(count, width + 2))]
    if len(pairs):
        sets.append(BlockRows(pairs, numbers(len(pairs), 2, 2, width), numbers(len(pairs), 2)))
    if window:
        fours = torch.stack([torch.randperm(count, generator=generator)[:4].sort().values for _ in range(5)])
        sets.append(BlockRows(fours, numbers(5, 4, 2, width), numbers(5, 2)))
    return sets, places


def shared(sets, places, size, split, damping=0.0):
    """The solutions of all ranks, each of which is given its own rows alone, and the bytes that each sent."""

    def work(ranks):
        share = Share(ranks, places, split)
        near = [share.near(one.blocks) for one in sets]
        own = [BlockRows(*(part[n] for part in vars(one).values())) for one, n in zip(sets, near, strict=True)]
        found = solve_shared(own, places, damping, share)
        return share, found, share.ranks.sent, share.whole(found)

    return together(size, work)


@settings(deadline=None, max_examples=15)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    width=st.integers(1, 3),
    size=st.integers(2, 5),
    window=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_solution_is_that_of_one_process(shape, width, size, window, seed):
    sets, places = drawn(shape, width, seed, window and torch.tensor(shape).prod() > 3)
    size, split = min(size, len(places)), len(sets) < 3
    wanted = dense(sets, len(places), width)
    close = {"rtol": 1e-7, "atol": 1e-7 * float(wanted.abs().max())}  # as in test_dissection
    for share, found, _, whole in shared(sets, places, size, split):
        torch.testing.assert_close(whole, wanted, **close)
        known = share.mine if size > 1 else torch.arange(len(places))
        for one in sets:  # what it works on without owning it is there too
            groups = one.blocks[share.near(one.blocks)] if size > 1 else one.blocks
            known = torch.cat([known, groups.flatten()])
        torch.testing.assert_close(found[known], wanted[known], **close)


def test_damping_is_that_of_one_process():
    """Blocks at the border have their longest column in another process's rows."""
    sets, places = drawn([3, 2], 2, window=True)
    sets[-1].jacobian[:] *= 50
    alone = shared(sets, places, 1, False, damping=0.1)[0][3]
    for _, _, _, whole in shared(sets, places, 3, False, damping=0.1):
        torch.testing.assert_close(whole, alone, rtol=1e-12, atol=1e-12 * float(alone.abs().max()))


@pytest.mark.parametrize("split", [True, False])
def test_bytes_go_with_what_lies_between_the_shares(split):
    def sent(*shape):
        sets, places = drawn(shape, 3)
        return torch.tensor([bytes_ for _, _, bytes_, _ in shared(sets, places, 2, split)])

    assert (sent(8, 3) == sent(16, 3)).all()  # twice the boxes behind the same line of faces
    longer = sent(12, 6) / sent(12, 3)
    assert (longer > 1.5).any()
    assert (longer <= 4).all()


def test_numbers_that_are_not_finite_are_known_to_all():
    sets, places = drawn([4, 1], 2)
    sets[0].residual[3] = torch.nan  # seen by the last process alone
    assert all(bool(found.isnan().all()) for _, found, _, _ in shared(sets, places, 4, True))
