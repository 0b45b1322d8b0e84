"""The one loop over image bands: read ahead by a thread, compute here, write behind by a thread, bounded queues."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from cpikan.errors import InputError
from cpikan.streaming.bands import Band

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_S = 0.05  # how soon a blocked thread notices that the run has ended


class ProgressSink(Protocol):
    """Something that is told how many image rows are done."""

    def advance(self, rows: int) -> None: ...


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


def stream(
    bands: Sequence[Band],
    read: Callable[[Band], Item],
    compute: Callable[[Band, Item], Result],
    write: Callable[[Band, Result], None],
    *,
    depth: int = 2,
    progress: ProgressSink | None = None,
) -> StreamTimings:
    """Carry every band through ``read`` (its own thread), ``compute`` (this thread) and ``write`` (its own thread), in order.

    At most ``depth`` bands wait before and after ``compute``, so memory is bounded by the bands in flight. The first
    exception of any stage ends the run and is raised here; Ctrl-C likewise. Bands whose ``write`` has returned stay written.
    """
    if depth < 1:
        raise InputError(f"depth {depth} does not bound the queues: give at least 1")
    stop = threading.Event()
    failures: list[BaseException] = []
    timings = StreamTimings()
    incoming, outgoing = _Pipe(depth, stop), _Pipe(depth, stop)

    def guarded(body: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                body()
            except BaseException as failure:
                failures.append(failure)
                stop.set()

        return run

    def reader() -> None:
        for band in bands:
            started = time.perf_counter()
            item = read(band)
            timings.read += time.perf_counter() - started
            if not incoming.put((band, item)):
                return

    def writer() -> None:
        for _ in bands:
            got = outgoing.get()
            if got is None:
                return
            band, result = got
            started = time.perf_counter()
            write(band, result)
            timings.write += time.perf_counter() - started
            if progress is not None:
                progress.advance(band.rows)

    threads = [threading.Thread(target=guarded(body), name=f"cpikan-{body.__name__}") for body in (reader, writer)]
    try:
        for thread in threads:
            thread.start()
        for _ in bands:
            got = incoming.get()
            if got is None:
                break
            band, item = got
            started = time.perf_counter()
            result = compute(band, item)
            timings.compute += time.perf_counter() - started
            if not outgoing.put((band, result)):
                break
        for thread in threads:
            while thread.is_alive():  # a plain join() would keep Ctrl-C waiting
                thread.join(_POLL_S)
    except BaseException as failure:
        failures.append(failure)
        stop.set()
    finally:
        for thread in threads:
            if thread.ident is not None:  # an interrupt may come before the thread was started
                thread.join()
    if failures:
        raise failures[0]
    return timings
