"""Minimum-cost flow on the dual graph of a tile: the cheapest integers that make all loops sum to zero.

Nodes are those of ``faces``; an edge of the dual graph crosses an edge between two pixels, and one unit of flow along it
changes the order step there by one. Nodes with windings left (+ or -) are joined with each other or with the outside::

       +1 ---> node ---> -1         each arrow crosses one pair of pixels and cuts the phase there by one turn
                |
                +------> outside (node 0), which takes any amount
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.unwrap.faces import windings

_LOW = np.int64(0xFFFFFFFF)


@compiled
def _incidence(gain: np.ndarray, loss: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """List the edges of every node: those of node n are ``edges[start[n] : start[n + 1]]``."""
    start = np.zeros(nodes + 2, np.int32)
    for edge in range(gain.size):
        if gain[edge] >= 0:
            start[gain[edge] + 2] += 1
            start[loss[edge] + 2] += 1
    for n in range(2, nodes + 2):
        start[n] += start[n - 1]
    edges = np.empty(start[nodes + 1], np.int32)
    for edge in range(gain.size):
        if gain[edge] >= 0:
            for n in (gain[edge], loss[edge]):
                edges[start[n + 1]] = edge
                start[n + 1] += 1
    return start, edges


@compiled(inline="always")
def _push(heap: np.ndarray, size: int, key: np.int64) -> int:
    place = size
    while place > 0:
        above = (place - 1) >> 1
        if heap[above] <= key:
            break
        heap[place] = heap[above]
        place = above
    heap[place] = key
    return size + 1


@compiled(inline="always")
def _pop(heap: np.ndarray, size: int) -> int:
    """Remove the smallest key, heap[0]."""
    size -= 1
    key = heap[size]
    place = 0
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= key:
            break
        heap[place] = heap[below]
        place = below
    heap[place] = key
    return size


class Network(NamedTuple):
    """Nodes and edges with their costs (see ``balance``); the edges of node n are ``incident[start[n] : start[n + 1]]``."""

    gain: np.ndarray
    loss: np.ndarray
    rise: np.ndarray
    fall: np.ndarray
    start: np.ndarray
    incident: np.ndarray


class Search(NamedTuple):
    """State that the searches carry on (``excess`` and ``potential`` per node, ``change`` per edge), and their workspace.

    Per node ``distance`` from the source, the number of the search that has ``seen`` it and that is ``done`` with it, and
    the edge ``via`` which it was reached; ``heap`` of (distance, node) in one integer; ``settled`` nodes in order."""

    excess: np.ndarray
    potential: np.ndarray
    change: np.ndarray
    distance: np.ndarray
    seen: np.ndarray
    done: np.ndarray
    via: np.ndarray
    heap: np.ndarray
    settled: np.ndarray


@compiled
def balance(
    steps: np.ndarray, rise: np.ndarray, fall: np.ndarray, gain: np.ndarray, loss: np.ndarray, nodes: int
) -> int:
    """Change ``steps`` (int32, one per edge, in place) at least cost so that they sum to zero around every node.

    ``rise`` and ``fall`` (int32, at least 0) are what a step costs per unit up and down. Successive shortest paths with
    potentials from each unbalanced node to the nearest of opposite sign or the outside (Ahuja, Magnanti, Orlin, Network
    Flows (1993), 9.7; for phases Costantini, IEEE TGRS 36, 813 (1998)); a search ends at its target and touches nothing
    beyond, so that it costs as much as the windings are apart. Returns the number of searches.
    """
    excess = windings(steps, gain, loss, nodes)
    if not np.any(excess[1:]):
        return 0
    start, incident = _incidence(gain, loss, nodes)
    network = Network(gain, loss, rise, fall, start, incident)
    search = Search(
        excess,
        np.zeros(nodes, np.int64),
        np.zeros(steps.size, np.int32),
        np.empty(nodes, np.int64),
        np.zeros(nodes, np.int32),
        np.zeros(nodes, np.int32),
        np.empty(nodes, np.int32),
        np.empty(incident.size + 1, np.int64),
        np.empty(nodes, np.int32),
    )
    number = 0
    for sign in (1, -1):  # first the surplus to the nearest deficit or the outside, then the deficit from the outside
        for source in range(1, nodes):
            while excess[source] * sign > 0:
                number += 1
                _move_unit(network, search, source, _nearest(network, search, source, sign, number), sign)
    for edge in range(steps.size):
        steps[edge] += search.change[edge]
    return number


@compiled
def _nearest(network: Network, search: Search, source: int, sign: int, number: int) -> int:
    """Find the node of opposite excess, or the outside, to which a unit from ``source`` moves at least cost (Dijkstra).

    With ``sign`` -1 the unit moves to the source. Afterwards the potentials make all reduced costs at least 0 again.
    """
    gain, loss, rise, fall, start, incident = network
    excess, potential, change, distance, seen, done, via, heap, settled = search
    distance[source], seen[source] = 0, number
    size = _push(heap, 0, np.int64(source))
    count = 0
    while True:
        here = int(heap[0] & _LOW)
        size = _pop(heap, size)
        if done[here] == number:
            continue
        done[here] = number
        if here == 0 or excess[here] * sign < 0:
            break
        settled[count] = here
        count += 1
        for place in range(start[here], start[here + 1]):
            edge = incident[place]
            rising = loss[edge] == here
            there = gain[edge] if rising else loss[edge]
            if done[there] == number:
                continue
            if rising == (sign == 1):
                cost = rise[edge] if change[edge] >= 0 else -fall[edge]
            else:
                cost = fall[edge] if change[edge] <= 0 else -rise[edge]
            trial = distance[here] + cost + sign * (potential[here] - potential[there])
            if seen[there] != number or trial < distance[there]:
                distance[there], seen[there], via[there] = trial, number, edge
                size = _push(heap, size, (trial << np.int64(32)) | np.int64(there))
    for place in range(count):
        potential[settled[place]] += sign * (distance[settled[place]] - distance[here])
    return here


@compiled
def _move_unit(network: Network, search: Search, source: int, target: int, sign: int) -> None:
    """Move one unit from ``source`` to ``target`` (the other way for ``sign`` -1) along the path that was found."""
    gain, loss = network.gain, network.loss
    search.excess[source] -= sign
    if target != 0:
        search.excess[target] += sign
    here = target
    while here != source:
        edge = search.via[here]
        if gain[edge] == here:
            search.change[edge] += sign
            here = loss[edge]
        else:
            search.change[edge] -= sign
            here = gain[edge]
