"""The one loop over bands, the runs of image rows: read ahead by a thread, compute here, write behind by a thread."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cpikan.errors import InputError
from cpikan.streaming.events import Progress

Buffer = TypeVar("Buffer")


@dataclass(frozen=True)
class Band:
    """Rows [start, stop) of an image, the index-th of their list."""

    index: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def split_bands(height: int, rows: int, first_row: int = 0) -> tuple[Band, ...]:
    """Cut the rows from ``first_row`` to ``height`` into bands of ``rows``; the last may be shorter."""
    step = max(1, rows)
    return tuple(Band(i, start, min(start + step, height)) for i, start in enumerate(range(first_row, height, step)))


class BufferPool(Generic[Buffer]):
    """Hands out buffers and takes them back from any thread; as many exist as bands were ever in flight.

    So nothing is allocated, and no page is touched for the first time, once the run is warm.
    """

    def __init__(self, make: Callable[[], Buffer]) -> None:
        self._make = make
        self._free: deque[Buffer] = deque()

    def take(self) -> Buffer:
        try:
            return self._free.pop()  # the one that came back last is still in the caches
        except IndexError:
            return self._make()

    def give(self, buffer: Buffer) -> None:
        self._free.append(buffer)


Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_S = 0.05  # how soon a blocked thread notices that the run has ended
_END = object()


@dataclass
class StreamTimings:
    """Seconds each stage was busy; with overlap their sum exceeds the wall time."""

    read: float = 0.0
    compute: float = 0.0
    write: float = 0.0


@dataclass
class _Pipe:
    """A bounded queue whose two ends give up once the run has failed, so that no thread waits for a dead one."""

    depth: int
    stop: threading.Event
    items: queue.Queue[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.items = queue.Queue(maxsize=self.depth)

    def put(self, item: Any) -> bool:
        while not self.stop.is_set():
            try:
                self.items.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def get(self) -> Any:
        while not self.stop.is_set():
            try:
                return self.items.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None


@dataclass
class _Flow:
    """What the three threads of a stream share: two bounded queues, and the failures that end it."""

    bands: Sequence[Band]
    depth: int
    stop: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)
    timings: StreamTimings = field(default_factory=StreamTimings)
    waited: float = 0.0  # for the reader, by the thread that computes

    def __post_init__(self) -> None:
        self.incoming, self.outgoing = _Pipe(self.depth, self.stop), _Pipe(self.depth, self.stop)

    def read(self, read: Callable[[Band], Any]) -> None:
        """Read all bands; the body of a thread."""
        with self._ending():
            for band in self.bands:
                started = time.perf_counter()
                item = read(band)
                self.timings.read += time.perf_counter() - started
                if not self.incoming.put((band, item)):
                    return

    def write(self, write: Callable[[Band, Any], None], progress: Progress | None) -> None:
        """Write all results; the body of a thread."""
        with self._ending():
            for band in self.bands:
                result = self.outgoing.get()
                if result is None:
                    return
                started = time.perf_counter()
                write(band, result[0])
                self.timings.write += time.perf_counter() - started
                if progress is not None:
                    progress.advance(band.rows)

    def items(self) -> Iterator[tuple[Band, Any]]:
        """Yield what the reader has read, until the run fails."""
        for _ in self.bands:
            started = time.perf_counter()
            got = self.incoming.get()
            self.waited += time.perf_counter() - started
            if got is None:
                return
            yield got

    def compute(self, results: Iterator[Any]) -> None:
        """Hand the results to the writer."""
        for _ in self.bands:
            started, waited = time.perf_counter(), self.waited
            result = next(results, _END)
            self.timings.compute += time.perf_counter() - started - (self.waited - waited)
            assert result is not _END or self.stop.is_set(), "a band has no result"
            if not self.outgoing.put((result,)):
                return

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except BaseException as failure:
            self.failures.append(failure)
            self.stop.set()


def stream(
    bands: Sequence[Band],
    read: Callable[[Band], Item],
    compute: Callable[[Band, Item], Result],
    write: Callable[[Band, Result], None],
    *,
    depth: int = 2,
    progress: Progress | None = None,
) -> StreamTimings:
    """Carry every band through ``read`` (its own thread), ``compute`` (this thread) and ``write`` (its own thread), in order.

    At most ``depth`` bands wait before and after ``compute``, so memory is bounded by the bands in flight. The first
    exception of any stage ends the run and is raised here; Ctrl-C likewise. Bands whose ``write`` has returned stay written.
    """

    def each(items: Iterator[tuple[Band, Item]]) -> Generator[Result, None, None]:
        for band, item in items:
            yield compute(band, item)

    return stream_through(bands, read, each, write, depth=depth, progress=progress)


def stream_through(
    bands: Sequence[Band],
    read: Callable[[Band], Item],
    transform: Callable[[Iterator[tuple[Band, Item]]], Generator[Result, None, None]],
    write: Callable[[Band, Result], None],
    *,
    depth: int = 2,
    progress: Progress | None = None,
) -> StreamTimings:
    """Stream bands as `stream` does; ``transform`` makes one result per band, in order, and may take bands ahead.

    ``transform`` is called before anything is read, and runs in this thread; an `Executor` may work on the bands it took.
    """
    if depth < 1:
        raise InputError(f"depth {depth} does not bound the queues: give at least 1")
    flow = _Flow(bands, depth)
    threads = [
        threading.Thread(target=flow.read, args=(read,), name="cpikan-reader"),
        threading.Thread(target=flow.write, args=(write, progress), name="cpikan-writer"),
    ]
    results = transform(flow.items())
    try:
        for thread in threads:
            thread.start()
        flow.compute(results)
        for thread in threads:
            while thread.is_alive():  # a plain join() would keep Ctrl-C waiting
                thread.join(_POLL_S)
    except BaseException as failure:
        flow.failures.append(failure)
        flow.stop.set()
    finally:
        results.close()
        for thread in threads:
            if thread.ident is not None:  # an interrupt may come before the thread was started
                thread.join()
    if flow.failures:
        raise flow.failures[0]
    return flow.timings
