"""Who runs the rows of tiles: this process, or several that share the image's rows in memory."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.streaming.buffers import BufferPool
from cpikan.streaming.memory import anonymous_mib
from cpikan.streaming.tiling.model import TileModel
from cpikan.streaming.tiling.rows import RowFigures, TilePlan, run_row


@dataclass
class Slot:
    """Memory for the image rows or the band of one row of tiles; ``index`` is its place among the shared ones."""

    array: np.ndarray
    index: int = -1


@dataclass
class Job:
    """Row i of tiles on its way: its image rows, its band, and the slots they live in, if any."""

    i: int
    rows: np.ndarray
    height: int
    source: Slot | None = None
    band: np.ndarray | None = None
    target: Slot | None = None
    result: Callable[[], RowFigures] | None = None


class OwnProcess:
    """Rows of tiles run here, when their result is asked for."""

    processes, shared_mib = 1, 0.0

    def __init__(self, plan: TilePlan, model: TileModel, threads: int | None, depth: int) -> None:
        self._plan, self._model, self._threads = plan, model, threads
        self._count = min(depth + 2, len(plan.grid.rows))  # one in hand on either side, and those that wait
        self.inputs = BufferPool(lambda: self._new(plan.input_shape))
        self.bands = BufferPool(lambda: self._new(plan.band_shape))
        self.own_mib = 0.0

    def _new(self, shape: tuple[int, int, int]) -> Slot:
        slot = Slot(np.zeros(shape, np.float32))
        self.own_mib += slot.array.nbytes / 2**20
        return slot

    def prepare(self, inputs: bool, bands: bool) -> None:
        """Make now all slots there will be, so that memory depends on the plan and not on which thread is faster."""
        for wanted, pool, shape in (
            (inputs, self.inputs, self._plan.input_shape),
            (bands, self.bands, self._plan.band_shape),
        ):
            for _ in range(self._count if wanted else 0):
                slot = self._new(shape)
                slot.array.fill(0)  # touched: its pages are there
                pool.give(slot)

    def submit(self, job: Job) -> None:
        def result() -> RowFigures:
            if job.band is None:
                job.target = self.bands.take()
                job.band = job.target.array[:, : job.height]
            return run_row(self._plan, self._model, job.i, job.rows, job.band)

        job.result = result

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with _threads_limited(self._threads):
            yield


class SeveralProcesses:
    """Rows of tiles run in processes of their own, each a row at a time; files are read and written by this one only.

    The model is sent to them once, so it must be importable: a function or class of a module. The result is that of one
    process byte for byte as far as the model's is, because rows of tiles meet here, in order. ``depth`` rows of tiles
    wait before and after they are joined; that bounds the slots in use, so taking one never waits.
    """

    own_mib = 0.0

    def __init__(self, plan: TilePlan, model: TileModel, processes: int, threads: int | None, depth: int) -> None:
        self.processes, self._plan, self._model, self._threads = processes, plan, model, threads or 1
        self._counts = depth + 2, 2 * depth + 3  # in hand, waiting, being joined; and for bands being written, waiting
        sizes = [4 * int(np.prod(shape)) for shape in (plan.input_shape, plan.band_shape)]
        self._bytes = sum(count * size for count, size in zip(self._counts, sizes, strict=True))
        self.shared_mib = self._bytes / 2**20
        self.inputs: BufferPool[Slot] = BufferPool(_none_left)
        self.bands: BufferPool[Slot] = BufferPool(_none_left)
        _check_shared_memory(self._bytes)

    def prepare(self, inputs: bool, bands: bool) -> None:
        """All slots are there from the start, whatever is wanted of them."""

    def submit(self, job: Job) -> None:
        job.target = self.bands.take()
        job.band = job.target.array[:, : job.height]
        assert job.source is not None
        places = job.source.index, job.target.index
        with _ended_named():
            future: Future[RowFigures] = self._pool.submit(_work, job.i, places, job.height)

        def result() -> RowFigures:
            with _ended_named():
                return future.result()

        job.result = result

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        memory = SharedMemory(create=True, size=self._bytes)
        try:
            for pool, slots in zip((self.inputs, self.bands), _slots(memory, self._plan, self._counts), strict=True):
                for slot in slots:
                    pool.give(slot)
            context = get_context("spawn")
            given = (memory.name, self._plan, self._counts, self._model, self._threads, context.Value("i", 0))
            self._pool = ProcessPoolExecutor(self.processes, context, _start, given)
            try:
                self._begin()
                yield
            finally:
                self._pool.shutdown(cancel_futures=True)
        finally:
            self.inputs, self.bands = BufferPool(_none_left), BufferPool(_none_left)
            with contextlib.suppress(BufferError):  # a traceback may hold a slot; the name goes all the same
                memory.close()
            memory.unlink()

    def _begin(self) -> None:
        """Wait until a process is there, so that a model that cannot travel is found out now."""
        try:
            self._pool.submit(_ready).result()
        except Exception as failure:
            raise InputError(
                f"the model cannot be sent to other processes ({type(failure).__name__}: {failure}): define it at the "
                "top of a module, run the script under if __name__ == '__main__', or give processes=1"
            ) from failure


@contextlib.contextmanager
def _ended_named() -> Iterator[None]:
    """A pool breaks where it is asked next: for a result, or to take another row."""
    try:
        yield
    except BrokenProcessPool as failure:
        raise InputError(
            "a process of the run ended by itself, out of memory perhaps: give a smaller batch or processes=1, "
            "and go on with resume"
        ) from failure


def _none_left() -> Slot:
    raise RuntimeError("more rows of tiles are under way than have memory")


def _slots(memory: SharedMemory, plan: TilePlan, counts: tuple[int, int]) -> tuple[list[Slot], list[Slot]]:
    """The shared memory as slots for image rows and slots for bands."""
    place, found = 0, []
    for shape, count in zip((plan.input_shape, plan.band_shape), counts, strict=True):
        arrays = np.ndarray((count, *shape), np.float32, memory.buf, place)
        found.append([Slot(array, k) for k, array in enumerate(arrays)])
        place += arrays.nbytes
    return found[0], found[1]


_worker: dict[str, Any] = {}  # in a process of the crew: what it was started with


def _start(name: str, plan: TilePlan, counts: tuple[int, int], model: TileModel, threads: int, started: Any) -> None:
    """Begin in a new process: find the shared memory, and end with the process that started this one.

    A model with ``for_process`` is told the number of its process, so that each can take a device of its own.
    """
    with started.get_lock():
        number = started.value
        started.value += 1
    model = model.for_process(number) if hasattr(model, "for_process") else model
    memory = SharedMemory(name)
    _worker.update(memory=memory, slots=_slots(memory, plan, counts), plan=plan, model=model)
    _worker["limits"] = _threads_limited(threads)
    _worker["limits"].__enter__()
    threading.Thread(target=_end_with_parent, name="cpikan-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _ready() -> bool:
    return True


def _work(i: int, places: tuple[int, int], height: int) -> RowFigures:
    rows, band = (slots[place].array for slots, place in zip(_worker["slots"], places, strict=True))
    figures = run_row(_worker["plan"], _worker["model"], i, rows, band[:, :height])
    figures.anonymous_mib = anonymous_mib()
    return figures


@contextlib.contextmanager
def _threads_limited(threads: int | None) -> Iterator[None]:
    """Let numerical libraries, torch among them where it is loaded, use so many threads; None leaves them alone."""
    if threads is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        if torch:
            torch.set_num_threads(before)


def _check_shared_memory(needed: int) -> None:
    folder = Path("/dev/shm")
    if folder.is_dir():
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        if free < needed:
            raise InputError(
                f"several processes need {needed // 2**20 + 1} MiB of shared memory, {free // 2**20} MiB are free in "
                f"{folder}: give processes=1, fewer processes or a smaller tile"
            )
