"""First pass: the tiles one by one, their cores into the output arrays, their overlaps into votes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.unwrap.components import NodeSurvey, join_surveys, survey_core
from cpikan.psi.unwrap.grid import TileBox
from cpikan.psi.unwrap.integer_least_squares import OffsetEdges
from cpikan.psi.unwrap.overlap import Strip, Votes, compare_strips, count_votes, join_votes
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

    ``orders``, ``component`` and ``ambiguous`` are the output arrays (H, W). Orders are written relative to their node,
    and ``component`` holds node numbers plus one, until the second pass.
    """

    def __init__(self, orders: np.ndarray, component: np.ndarray, ambiguous: np.ndarray) -> None:
        self._orders, self._component, self._ambiguous = orders, component, ambiguous
        self._left: Strip | None = None  # right end of the tile before
        self._above: dict[int, Strip] = {}  # lower ends of the row of tiles above, by column
        self._cores: list[NodeSurvey] = []
        self._nodes = 0
        self._votes: list[Votes] = []
        self._seams: list[Votes] = []
        self._edges: list[OffsetEdges] = []
        self._windows: list[tuple[slice, slice]] = []
        self.methods: Counter[str] = Counter()
        self.residues = 0

    def add(self, box: TileBox, work: TileWork) -> None:
        """Write the core of a tile and compare the tile with its neighbours to the left and above."""
        labels = work.found.labels
        whole = Strip(work.found.orders, np.where(labels > 0, labels + np.int32(self._nodes - 1), np.int32(-1)))
        self._write_core(box, whole)
        if box.column > 0 and self._left is not None:
            width = self._left.nodes.shape[1]
            here = Strip(whole.orders[:, :width], whole.nodes[:, :width])
            window = (box.window[0], slice(box.x.start, box.x.start + width))
            rows = box.core_inside[0]
            self._compare(self._left, here, window)
            self._seams.append(_seam_votes(_rows(self._left, rows), _rows(here, rows), work.phase_rad[rows, :width]))
        if box.row > 0:
            above = self._above.pop(box.column)
            height = above.nodes.shape[0]
            here = _rows(whole, slice(0, height))
            window = (slice(box.y.start, box.y.start + height), box.window[1])
            columns = box.core_inside[1]
            self._compare(above, here, window)
            turned = work.phase_rad[:height, columns].T
            self._seams.append(_seam_votes(_rows(_turned(above), columns), _rows(_turned(here), columns), turned))
        self._keep_strips(box, whole)
        self._nodes += work.found.count
        self._cores.append(work.core)
        self.methods[work.found.method] += 1
        self.residues += work.residues

    def nodes(self) -> NodeSurvey:
        return join_surveys(self._cores)

    def edges(self) -> OffsetEdges:
        none = np.zeros(0, np.int64)
        names = ("first", "second", "difference", "weight")
        return OffsetEdges(*(np.concatenate([none, *(getattr(e, name) for e in self._edges)]) for name in names))

    def votes(self) -> tuple[Votes, Votes]:
        """The votes of all pixels in overlaps, and those of the pairs across borders of cores."""
        return join_votes(self._votes), join_votes(self._seams)

    def mark_violated(self, offsets: np.ndarray) -> None:
        """Flag the overlaps of nodes whose commonest difference the offsets do not meet (before the second pass)."""
        for window, edges in zip(self._windows, self._edges, strict=True):
            bad = edges.residual(offsets) != 0
            if bad.any():
                either = np.concatenate((edges.first[bad], edges.second[bad])) + 1
                self._ambiguous[window] |= np.isin(self._component[window], either)

    def _write_core(self, box: TileBox, whole: Strip) -> None:
        limits = np.iinfo(self._orders.dtype)
        inside = whole.orders[box.core_inside]
        if inside.min() < limits.min or inside.max() > limits.max:
            raise InputError(f"orders do not fit {self._orders.dtype}: give orders_out of int32, or smaller tiles")
        self._orders[box.core] = inside
        self._component[box.core] = whole.nodes[box.core_inside] + 1

    def _compare(self, before: Strip, here: Strip, window: tuple[slice, slice]) -> None:
        compared = compare_strips(before, here)
        self._votes.append(compared.votes)
        self._edges.append(compared.edges)
        self._windows.append(window)
        if compared.deviating.any():
            self._ambiguous[window] |= compared.deviating

    def _keep_strips(self, box: TileBox, whole: Strip) -> None:
        """Copy the ends that the next tile and the next row of tiles share with this one (copies, so that the rest is
        freed)."""
        columns = slice(box.x.next_start - box.x.start, None)
        rows = slice(box.y.next_start - box.y.start, None)
        self._left = Strip(whole.orders[:, columns].copy(), whole.nodes[:, columns].copy())
        self._above[box.column] = Strip(whole.orders[rows].copy(), whole.nodes[rows].copy())


def _rows(strip: Strip, rows: slice) -> Strip:
    return Strip(strip.orders[rows], strip.nodes[rows])


def _turned(strip: Strip) -> Strip:
    return Strip(strip.orders.T, strip.nodes.T)


def _seam_votes(first: Strip, second: Strip, phase_rad: np.ndarray) -> Votes:
    """Differences of two tiles at the border of their cores (the middle column), where both keep the pair within pi."""
    border = phase_rad.shape[1] // 2
    p, q = (slice(None), border - 1), (slice(None), border)
    valid = (second.nodes[p] >= 0) & (second.nodes[q] >= 0)
    step = -np.rint((phase_rad[q] - phase_rad[p]) * _PER_TURN)
    smooth = (second.orders[q] - second.orders[p] == step) & (first.orders[q] - first.orders[p] == step)
    use = valid & smooth
    difference = first.orders[q][use] - second.orders[q][use]
    return count_votes(first.nodes[q][use], second.nodes[q][use], difference)[0]
