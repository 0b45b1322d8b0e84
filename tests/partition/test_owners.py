"""Owners: equal shares, connected in few pieces, and the order in which they are joined."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.partition.owners import merges, owners


@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=3), processes=st.integers(1, 9))
def test_shares_are_as_equal_as_whole_boxes_allow(shape, processes):
    places = list(itertools.product(*(range(n) for n in shape)))
    if processes > len(places):
        with pytest.raises(InputError, match=f"{processes} processes for {len(places)} subdomains"):
            owners(places, processes)
        return
    shares = [owners(places, processes).count(rank) for rank in range(processes)]
    # every cut rounds once, and what one rounds away is halved with every further cut
    assert max(shares) - min(shares) <= 1 or max(shares) <= -(-len(places) // processes) + 1
    assert min(shares) >= 1
    assert sum(shares) == len(places)


def test_two_processes_meet_along_the_shortest_line():
    places = list(itertools.product(range(6), range(4)))
    found = owners(places, 2)
    assert {places[box][0] for box in range(24) if found[box] == 0} == {0, 1, 2}


@pytest.mark.parametrize("processes", range(1, 12))
def test_every_part_is_joined_once_on_the_way_to_process_0(processes):
    given_to = {}
    for rank in range(processes):
        for first, middle, last in merges(rank, processes):
            assert first <= rank < last
            assert first < middle < last
            if rank == middle:  # it gives what it has to the first, and is done
                given_to[rank] = first
                break
            assert rank == first
    assert sorted(given_to) == list(range(1, processes))
    assert all(to < rank for rank, to in given_to.items())
