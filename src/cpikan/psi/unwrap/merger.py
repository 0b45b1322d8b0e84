"""Tiles merged into one map: their cores into the output arrays, their overlaps into votes on integer offsets.

* A *tile* is a box of the image that is unwrapped alone. Tiles overlap; their *cores* do not, and make up the image.
* A *region* owns pixels of the map: the core of a tile, or a rectangle of several that was unwrapped again as one.
* A *node* is a connected component inside one region. Nodes are numbered through all regions as these come, so those of a
  region follow each other. The arrays hold node numbers plus one until the second pass.
* An *overlap* is what two unwrappings both cover. Its votes say by how many orders their nodes differ there.
* A *strip* is the end of a tile that is kept until its neighbour to the right or below has come::

       tile 0     tile 1              region 0 | region 1          nodes 0, 1 | 2
      +-------+--+-------+            ---------+---------         ------------+----------
      |       |##|       |            region 2 | region 3          nodes 3    | 4, 5, 6
      +-------+--+-------+
       ## a strip of tile 0, and       once more as one: region 4 in the place of 0 and 1, with nodes 7, ...;
       where tile 1 votes              nodes 0 to 2 have no pixels from then on and are not active
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cpikan.errors import InputError
from cpikan.partition.partition import Box
from cpikan.psi.unwrap.edges import edge_costs
from cpikan.psi.unwrap.faces import edge_ends, follow_steps, number_faces
from cpikan.psi.unwrap.flow import balance
from cpikan.psi.unwrap.guide import guide_phasors, patched_phase
from cpikan.psi.unwrap.integer_least_squares import OffsetEdges
from cpikan.psi.unwrap.nodes import NodeCounts, count_nodes, join_nodes, numbered, write_core
from cpikan.psi.unwrap.overlap import (
    Overlap,
    OverlapStrip,
    Rectangle,
    Votes,
    compare_strips,
    contested_pairs,
    join_rectangles,
    join_votes,
    margin_seam_votes,
    tile_seam_votes,
)
from cpikan.psi.unwrap.phasor import angles, relative_quality
from cpikan.psi.unwrap.raster import raster_unwrap
from cpikan.psi.unwrap.relax import fewer_jumps
from cpikan.psi.unwrap.report import OrderMaps
from cpikan.psi.unwrap.residues import count_residues

_TURN = 2 * np.pi


@dataclass(frozen=True)
class TileOrders:
    """Orders (h, w) int32 and labels (h, w) int32 of the 4-connected components (1, 2, ... by first pixel; 0 = no
    pixel).

    ``method`` says how they were found: ``raster`` (no inconsistency in the tile), ``smoothed`` (none after smoothing)
    or ``flow`` (the cheapest cuts). Orders are relative to an arbitrary constant per component.
    """

    orders: np.ndarray
    labels: np.ndarray
    count: int
    method: Literal["raster", "smoothed", "flow"]


def unwrap_tile(phase_rad: np.ndarray, quality: np.ndarray | None = None) -> TileOrders:
    """Find integer orders k of a wrapped phase (h, w) float32 so that phase + 2 pi k is continuous; NaN = no pixel.

    Without inconsistent loops all paths agree and one scan is exact. Otherwise the phase is smoothed along its local
    slope, weighted with ``quality`` (h, w; higher is better, such as 1 / sigma^2): around a few residues, or all of it.
    Loops that still disagree, around a residue or a hole, are balanced by the flow of least cost (see ``edge_costs``
    and ``balance``). Each pixel then takes the order that brings it nearest to the smoothed surface; where that surface
    is itself noise, the order with the fewest jumps (see ``fewer_jumps``).
    """
    phase_rad = np.ascontiguousarray(phase_rad, np.float32)
    orders, labels = np.empty(phase_rad.shape, np.int32), np.empty(phase_rad.shape, np.int32)
    count = raster_unwrap(phase_rad, orders, labels)
    if count >= 0:
        return TileOrders(orders, labels, count, "raster")
    given = np.ones_like(phase_rad) if quality is None else np.ascontiguousarray(quality, np.float32)
    weight = relative_quality(phase_rad, given)
    patched, few = patched_phase(phase_rad, weight)
    if few:
        count = raster_unwrap(patched, orders, labels)
        if count >= 0:
            return TileOrders(_nearest_orders(phase_rad, patched, orders), labels, count, "smoothed")
    return _by_flow(phase_rad, weight, orders, labels)


def _by_flow(phase_rad: np.ndarray, weight: np.ndarray, orders: np.ndarray, labels: np.ndarray) -> TileOrders:
    real, imag = guide_phasors(phase_rad, weight)
    valid = weight > 0
    steps, rise, fall = edge_costs(real, imag, valid)
    node, nodes = number_faces(valid)
    gain, loss = edge_ends(node, valid)
    searches = balance(steps, rise, fall, gain, loss, nodes)
    count = follow_steps(valid, steps, orders, labels)
    smoothed = angles(real, imag, weight)
    found = _nearest_orders(phase_rad, smoothed, orders)
    fewer_jumps(phase_rad, found, smoothed + np.float32(_TURN) * orders, np.hypot(real, imag))
    return TileOrders(found, labels, count, "flow" if searches else "smoothed")


def _nearest_orders(phase_rad: np.ndarray, smoothed: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Find the orders that bring each pixel nearest to the smoothed surface (congruence), 0 where there is no pixel."""
    step = np.rint((smoothed - phase_rad) * np.float32(1 / _TURN))
    return orders + np.where(np.isfinite(step), step, 0).astype(np.int32)


_PER_TURN = np.float32(1 / (2 * np.pi))
_WHOLE = (slice(None), slice(None))


@dataclass(frozen=True)
class UnwrappedTile:
    """A tile's phase (h, w) in rad and orders, the nodes of its core, and the residues that the core owns."""

    phase_rad: np.ndarray
    found: TileOrders
    nodes: NodeCounts
    residues: int


@dataclass(frozen=True)
class Region:
    """Pixels of the map from one unwrapping, its nodes, and whether a larger region took its place."""

    core: Rectangle
    nodes: NodeCounts
    replaced: bool = False


def unwrap_window(
    phase_rad: np.ndarray, quality: np.ndarray | None, window: tuple[slice, ...]
) -> tuple[np.ndarray, TileOrders]:
    """Read a window of the map (H, W), float32, and unwrap it."""
    phase = np.array(phase_rad[window], np.float32)
    return phase, unwrap_tile(phase, None if quality is None else np.array(quality[window], np.float32))


def unwrap_box(phase_rad: np.ndarray, quality: np.ndarray | None, box: Box[int]) -> UnwrappedTile:
    """Read and unwrap the tile ``box``, and count what its core holds; this runs in the worker threads."""
    phase, found = unwrap_window(phase_rad, quality, box.slices)
    rows, columns = box.core_inside
    nodes = _nodes_of(found, box.core_inside, (box.core[0][0], box.core[1][0], phase_rad.shape[1]))
    residues = count_residues(
        phase[rows.start :, columns.start :], rows.stop - rows.start, columns.stop - columns.start
    )
    return UnwrappedTile(phase, found, nodes, residues)


def _nodes_of(found: TileOrders, inside: tuple[slice, ...], corner: tuple[int, int, int]) -> NodeCounts:
    return count_nodes(found.orders[inside], found.labels[inside], found.count, corner)


class TileMerger:
    """Collects finished tiles, row by row; only the strips that later tiles overlap stay in memory.

    Orders are written into ``maps`` relative to their node, and ``maps.component`` holds node numbers plus one, until
    the offsets of the nodes are known.
    """

    def __init__(self, maps: OrderMaps) -> None:
        self._maps = maps
        self._left: OverlapStrip | None = None  # right end of the tile before
        self._above: dict[int, OverlapStrip] = {}  # lower ends of the row of tiles above, by column
        self._regions: list[Region] = []
        self._tiles = 0  # the first regions are tiles
        self._nodes = 0
        self._overlaps: list[Overlap] = []
        self.methods: Counter[str] = Counter()
        self.residues = 0

    def add(self, box: Box[int], tile: UnwrappedTile) -> None:
        """Write the core of a tile and compare the tile with its neighbours to the left and above."""
        found, phase_rad = tile.found, tile.phase_rad
        (down, across), (rows, columns) = box.slices, box.core_inside
        row, column = box.position
        if column > 0 and self._left is not None:
            width = self._left.nodes.shape[1]
            here = self._strip(found, (slice(None), slice(0, width)))
            seam = tile_seam_votes(self._left.cut(rows), here.cut(rows), phase_rad[rows, :width])
            self._compare(self._left, here, (down, slice(across.start, across.start + width)), seam, found.count)
        if row > 0:
            above = self._above.pop(column)
            height = above.nodes.shape[0]
            here = self._strip(found, (slice(0, height), slice(None)))
            seam = tile_seam_votes(above.T.cut(columns), here.T.cut(columns), phase_rad[:height, columns].T)
            self._compare(above, here, (slice(down.start, down.start + height), across), seam, found.count)
        # copies of what the next tile and the next row of tiles share with this one, so that the rest is freed
        below, right = box.next_start
        self._left = self._strip(found, (slice(None), slice(right - across.start, None)))
        self._above[column] = self._strip(found, (slice(below - down.start, None), slice(None)))
        self._write(Rectangle(*box.core[0], *box.core[1]), found, (rows, columns), tile.nodes)
        self._tiles += 1
        self.methods[found.method] += 1
        self.residues += tile.residues

    def contested(self, offsets: np.ndarray, largest: int) -> list[Rectangle]:
        """Find the rectangles to unwrap again as one: regions that disagree, joined up to ``largest`` pixels."""
        region_of_node = np.repeat(np.arange(len(self._regions)), [r.nodes.size.size for r in self._regions])
        pairs = contested_pairs(self.votes()[0], region_of_node, offsets)
        active = np.array([i for i, r in enumerate(self._regions) if not r.replaced], np.int64)
        place = np.full(len(self._regions), -1)
        place[active] = np.arange(active.size)
        cores = [self._regions[i].core for i in active]
        return join_rectangles(cores, place[pairs], largest, active >= self._tiles)

    def replace(self, rectangle: Rectangle, window: Rectangle, phase_rad: np.ndarray, found: TileOrders) -> None:
        """Put a region in the place of those in ``rectangle``; phase and orders are those of ``window`` around it."""
        rows = slice(rectangle.top - window.top, rectangle.bottom - window.top)
        columns = slice(rectangle.left - window.left, rectangle.right - window.left)
        self._compare_margins(window, (rows, columns), phase_rad, found)
        for i, region in enumerate(self._regions):
            if not region.replaced and rectangle.holds(region.core.top, region.core.left):
                self._regions[i] = replace(region, nodes=region.nodes.emptied(), replaced=True)
        corner = (rectangle.top, rectangle.left, self._maps.orders.shape[1])
        self._write(rectangle, found, (rows, columns), _nodes_of(found, (rows, columns), corner))

    def _compare_margins(
        self, window: Rectangle, inside: tuple[slice, slice], phase_rad: np.ndarray, found: TileOrders
    ) -> None:
        """Compare an unwrapped window with the map around its ``inside``, on the four sides of its margin."""
        at = window.window
        stored = OverlapStrip(np.array(self._maps.orders[at]), np.array(self._maps.component[at]) - np.int32(1))
        whole = self._strip(found, _WHOLE)
        rows, columns = inside
        height, width = phase_rad.shape
        sides = (  # the margin, its pixels at the border of the region, and those of the region there
            ((slice(0, rows.start), slice(0, width)), (rows.start - 1, columns), (rows.start, columns)),
            ((slice(rows.stop, height), slice(0, width)), (rows.stop, columns), (rows.stop - 1, columns)),
            ((rows, slice(0, columns.start)), (rows, columns.start - 1), (rows, columns.start)),
            ((rows, slice(columns.stop, width)), (rows, columns.stop), (rows, columns.stop - 1)),
        )
        for margin, outer, inner in sides:
            before, here = stored.cut(margin), whole.cut(margin)
            if not before.nodes.size:
                continue
            step = -np.rint((phase_rad[inner] - phase_rad[outer]) * _PER_TURN)  # NaN where there is no pixel
            seam = margin_seam_votes(stored.cut(outer), whole.cut(outer), whole.orders[inner], step)
            down, across = (
                slice(o + s.start, o + s.stop) for o, s in zip((window.top, window.left), margin, strict=True)
            )
            self._compare(before, here, (down, across), seam, found.count)

    def nodes(self) -> NodeCounts:
        """Join the nodes of all regions, one after the other."""
        return join_nodes([region.nodes for region in self._regions])

    def edges(self) -> OffsetEdges:
        """Collect the measured differences between the nodes that are active."""
        none = np.zeros(0, np.int64)
        names = ("first", "second", "difference", "weight")
        edges = [overlap.edges for overlap in self._overlaps]
        every = OffsetEdges(*(np.concatenate([none, *(getattr(e, name) for e in edges)]) for name in names))
        active = self._active()
        return every.take(active[every.first] & active[every.second])

    def votes(self) -> tuple[Votes, Votes]:
        """Collect the votes of all pixels in overlaps, and those of the pairs across borders of regions."""
        active = self._active()
        return (
            join_votes([overlap.votes for overlap in self._overlaps]).between(active),
            join_votes([overlap.seam for overlap in self._overlaps]).between(active),
        )

    def flag(self, offsets: np.ndarray) -> None:
        """Flag pixels on which regions disagree as ambiguous (before the node numbers are replaced)."""
        active = self._active()
        for overlap in self._overlaps:
            if overlap.is_active(active):
                overlap.flag(self._maps.ambiguous, self._maps.component, offsets)

    def _active(self) -> np.ndarray:
        """Mark the nodes that have pixels still, bool (nodes,)."""
        sizes = [region.nodes.size.size for region in self._regions]
        return np.repeat([not region.replaced for region in self._regions], sizes).astype(bool)

    def _strip(self, found: TileOrders, window: tuple[slice, slice]) -> OverlapStrip:
        """Copy a part of the tile at hand, its labels as node numbers."""
        return OverlapStrip(found.orders[window].copy(), numbered(found.labels[window], self._nodes))

    def _write(self, core: Rectangle, found: TileOrders, inside: tuple[slice, slice], nodes: NodeCounts) -> None:
        limits = np.iinfo(self._maps.orders.dtype)
        if nodes.low.size and (nodes.low.min() < limits.min or (nodes.low + nodes.spread).max() - 1 > limits.max):
            raise InputError(f"orders do not fit {self._maps.orders.dtype}: give orders of int32, or smaller tiles")
        orders, component = np.asarray(self._maps.orders[core.window]), np.asarray(self._maps.component[core.window])
        write_core(orders, component, found.orders[inside], found.labels[inside], self._nodes)
        self._regions.append(Region(core, nodes))
        self._nodes += nodes.size.size

    def _compare(
        self, before: OverlapStrip, here: OverlapStrip, window: tuple[slice, slice], seam: Votes, count: int
    ) -> None:
        """Keep what two unwrappings say in ``window``; the later one has ``count`` nodes, which are the last so far."""
        compared, last = compare_strips(before, here), self._nodes + count - 1
        self._overlaps.append(
            Overlap(window, compared.votes, compared.edges, seam, np.packbits(compared.deviating), last)
        )
