"""First pass: the tiles one by one, their cores into the output arrays, their overlaps into votes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.unwrap.components import NodeSurvey, join_surveys, numbered, survey_core, write_core
from cpikan.psi.unwrap.contact import Contact, compare, outer_seam_votes, rows_of, seam_votes, turned
from cpikan.psi.unwrap.grid import TileBox
from cpikan.psi.unwrap.integer_least_squares import OffsetEdges
from cpikan.psi.unwrap.overlap import Strip, Votes, join_votes
from cpikan.psi.unwrap.regions import Rectangle, contested_pairs, join_rectangles
from cpikan.psi.unwrap.residues import count_residues
from cpikan.psi.unwrap.tile import TileOrders, unwrap_tile

_PER_TURN = np.float32(1 / (2 * np.pi))


@dataclass(frozen=True)
class TileWork:
    """One finished tile: its phase and orders, and what its core holds."""

    phase_rad: np.ndarray
    found: TileOrders
    core: NodeSurvey
    residues: int


@dataclass(frozen=True)
class Part:
    """A tile or a region in the map: the pixels it owns, its nodes, and whether a region took its place."""

    core: Rectangle
    first_node: int
    nodes: NodeSurvey
    replaced: bool = False


def work_on_tile(phase_rad: np.ndarray, quality: np.ndarray | None, box: TileBox, width: int) -> TileWork:
    """Read the window of ``box`` and unwrap it; this runs in the worker threads."""
    phase = np.array(phase_rad[box.window], np.float32)
    found = unwrap_tile(phase, None if quality is None else np.array(quality[box.window], np.float32))
    rows, columns = box.core_inside
    corner = (box.y.core_start, box.x.core_start, width)
    core = survey_core(found.orders[rows, columns], found.labels[rows, columns], found.count, corner)
    residues = count_residues(
        phase[rows.start :, columns.start :], rows.stop - rows.start, columns.stop - columns.start
    )
    return TileWork(phase, found, core, residues)


def finished_tiles(
    boxes: Sequence[TileBox], work: Callable[[TileBox], TileWork], threads: int
) -> Iterator[tuple[TileBox, TileWork]]:
    """The tiles in order, worked on by a pool; at most ``threads + 2`` are in memory."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cpikan-unwrap")
    pending: deque[tuple[TileBox, Future[TileWork]]] = deque()
    try:
        for box in boxes:
            pending.append((box, pool.submit(work, box)))
            if len(pending) > threads + 1:
                ready, future = pending.popleft()
                yield ready, future.result()
        while pending:
            ready, future = pending.popleft()
            yield ready, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


class Survey:
    """Collects finished tiles (row by row); only the strips that later tiles overlap stay in memory.

    ``orders`` and ``component`` are the output arrays (H, W). Orders are written relative to their node, and
    ``component`` holds node numbers plus one, until the second pass.
    """

    def __init__(self, orders: np.ndarray, component: np.ndarray) -> None:
        self._orders, self._component = orders, component
        self._left: Strip | None = None  # right end of the tile before
        self._above: dict[int, Strip] = {}  # lower ends of the row of tiles above, by column
        self._parts: list[Part] = []
        self._tiles = 0  # the first parts; later ones are regions
        self._nodes = 0
        self._contacts: list[Contact] = []
        self.methods: Counter[str] = Counter()
        self.residues = 0

    def add(self, box: TileBox, work: TileWork) -> None:
        """Write the core of a tile and compare the tile with its neighbours to the left and above."""
        found = work.found
        if box.column > 0 and self._left is not None:
            width = self._left.nodes.shape[1]
            here = self._strip(found, (slice(None), slice(0, width)))
            window = (box.window[0], slice(box.x.start, box.x.start + width))
            rows = box.core_inside[0]
            seam = seam_votes(rows_of(self._left, rows), rows_of(here, rows), work.phase_rad[rows, :width])
            self._compare(self._left, here, window, seam, found.count)
        if box.row > 0:
            above = self._above.pop(box.column)
            height = above.nodes.shape[0]
            here = self._strip(found, (slice(0, height), slice(None)))
            window = (slice(box.y.start, box.y.start + height), box.window[1])
            columns = box.core_inside[1]
            phase = work.phase_rad[:height, columns].T
            seam = seam_votes(rows_of(turned(above), columns), rows_of(turned(here), columns), phase)
            self._compare(above, here, window, seam, found.count)
        self._keep_strips(box, found)
        core = Rectangle(box.y.core_start, box.y.core_stop, box.x.core_start, box.x.core_stop)
        self._write_part(core, found, box.core_inside, work.core)
        self._tiles += 1
        self.methods[found.method] += 1
        self.residues += work.residues

    def regions(self, offsets: np.ndarray, largest: int) -> list[Rectangle]:
        """What to unwrap again as one: tiles and regions that disagree, joined up to ``largest`` pixels."""
        part_of_node = np.repeat(np.arange(len(self._parts)), [p.nodes.size.size for p in self._parts])
        pairs = contested_pairs(self.votes()[0], part_of_node, offsets)
        here = np.array([i for i, p in enumerate(self._parts) if not p.replaced], np.int64)
        place = np.full(len(self._parts), -1)
        place[here] = np.arange(here.size)
        again = here >= self._tiles
        return join_rectangles([self._parts[i].core for i in here], place[pairs], largest, again)

    def replace(self, region: Rectangle, window: Rectangle, phase_rad: np.ndarray, found: TileOrders) -> None:
        """Put ``region`` in the place of its tiles; it was unwrapped with a margin as ``window`` (phase and orders)."""
        rows = slice(region.top - window.top, region.bottom - window.top)
        columns = slice(region.left - window.left, region.right - window.left)
        self._compare_margins(window, (rows, columns), phase_rad, found)
        for i, part in enumerate(self._parts):
            core = part.core
            if not part.replaced and region.top <= core.top < region.bottom and region.left <= core.left < region.right:
                self._parts[i] = replace(part, nodes=part.nodes.emptied(), replaced=True)
        corner = (region.top, region.left, self._orders.shape[1])
        nodes = survey_core(found.orders[rows, columns], found.labels[rows, columns], found.count, corner)
        self._write_part(region, found, (rows, columns), nodes)

    def _compare_margins(
        self, window: Rectangle, inside: tuple[slice, slice], phase_rad: np.ndarray, found: TileOrders
    ) -> None:
        """Compare a region with what is in the map around it, on the four sides of its margin."""
        stored = Strip(np.array(self._orders[window.window]), np.array(self._component[window.window]) - np.int32(1))
        whole = self._strip(found, (slice(None), slice(None)))
        rows, columns = inside
        height, width = phase_rad.shape
        sides = (  # the margin, its pixels at the border of the region, and those of the region there
            ((slice(0, rows.start), slice(0, width)), (rows.start - 1, columns), (rows.start, columns)),
            ((slice(rows.stop, height), slice(0, width)), (rows.stop, columns), (rows.stop - 1, columns)),
            ((rows, slice(0, columns.start)), (rows, columns.start - 1), (rows, columns.start)),
            ((rows, slice(columns.stop, width)), (rows, columns.stop), (rows, columns.stop - 1)),
        )
        for margin, outer, inner in sides:
            before, here = (Strip(s.orders[margin], s.nodes[margin]) for s in (stored, whole))
            if not before.nodes.size:
                continue
            step = -np.rint((phase_rad[inner] - phase_rad[outer]) * _PER_TURN)  # NaN where there is no pixel
            outside, own = (Strip(s.orders[outer], s.nodes[outer]) for s in (stored, whole))
            seam = outer_seam_votes(outside, own, whole.orders[inner], step)
            down, across = (
                slice(o + s.start, o + s.stop) for o, s in zip((window.top, window.left), margin, strict=True)
            )
            self._compare(before, here, (down, across), seam, found.count)

    def nodes(self) -> NodeSurvey:
        return join_surveys([part.nodes for part in self._parts])

    def edges(self) -> OffsetEdges:
        none = np.zeros(0, np.int64)
        names = ("first", "second", "difference", "weight")
        every = OffsetEdges(
            *(np.concatenate([none, *(getattr(c.edges, name) for c in self._contacts)]) for name in names)
        )
        living = self._living()
        return every.take(living[every.first] & living[every.second])

    def votes(self) -> tuple[Votes, Votes]:
        """The votes of all pixels in overlaps, and those of the pairs across borders of cores."""
        living = self._living()
        return (
            join_votes([c.votes for c in self._contacts]).between(living),
            join_votes([c.seam for c in self._contacts]).between(living),
        )

    def flag(self, ambiguous: np.ndarray, offsets: np.ndarray) -> None:
        """Flag where parts disagree (before the second pass)."""
        living = self._living()
        for contact in self._contacts:
            if contact.alive(living):
                contact.flag(ambiguous, self._component, offsets)

    def _living(self) -> np.ndarray:
        sizes = [part.nodes.size.size for part in self._parts]
        return np.repeat([not part.replaced for part in self._parts], sizes).astype(bool)

    def _strip(self, found: TileOrders, part: tuple[slice, slice]) -> Strip:
        """Copy of a part of the tile at hand, its labels as node numbers."""
        return Strip(found.orders[part].copy(), numbered(found.labels[part], self._nodes))

    def _write_part(self, core: Rectangle, found: TileOrders, inside: tuple[slice, slice], nodes: NodeSurvey) -> None:
        limits = np.iinfo(self._orders.dtype)
        if nodes.low.size and (nodes.low.min() < limits.min or (nodes.low + nodes.spread).max() - 1 > limits.max):
            raise InputError(f"orders do not fit {self._orders.dtype}: give orders_out of int32, or smaller tiles")
        orders, component = np.asarray(self._orders[core.window]), np.asarray(self._component[core.window])
        write_core(orders, component, found.orders[inside], found.labels[inside], self._nodes)
        self._parts.append(Part(core, self._nodes, nodes))
        self._nodes += nodes.size.size

    def _compare(self, before: Strip, here: Strip, window: tuple[slice, slice], seam: Votes, count: int) -> None:
        self._contacts.append(compare(before, here, window, seam, self._nodes + count - 1))

    def _keep_strips(self, box: TileBox, found: TileOrders) -> None:
        """Copy the ends that the next tile and the next row of tiles share with this one (copies, so that the rest is
        freed)."""
        columns = slice(box.x.next_start - box.x.start, None)
        rows = slice(box.y.next_start - box.y.start, None)
        self._left = self._strip(found, (slice(None), columns))
        self._above[box.column] = self._strip(found, (rows, slice(None)))
