"""RankWatch: finds out that another process has died, says so in one line, and ends this one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from datetime import timedelta
from types import FrameType

import psutil
import torch.distributed as dist

from cpikan.errors import InputError
from cpikan.messages import one_line, say

_LOOK_S = 0.5  # a look costs a tenth of a millisecond
_BEAT_S, _SILENT_S = 1.0, 15.0  # of processes on other hosts, which say now and then that they live
_TELL_S = 3.0  # to hear why another has failed
_BROKEN_S = 5.0  # of silence, where a connection has broken too
_LEFT, _FAILED = "left", "failed "


class RankWatch:
    """A thread that looks after the processes of a group: on this host by their numbers, on others by their signs of life.

    Where one has died the first of those that live says so, and all end: who waits for a dead process, or for one that waits
    for it, would wait for ever.
    """

    def __init__(self, rank: int, size: int, address: tuple[str, int]) -> None:
        self._rank, self._others = rank, [other for other in range(size) if other != rank]
        # a connection of its own: a wait in the group's would hold this thread up
        self._store = dist.TCPStore(*address, is_master=False, timeout=timedelta(seconds=_SILENT_S))
        self._store.set(f"who/{rank}", f"{socket.gethostname()} {os.getpid()}")
        self._hosts = {other: self._store.get(f"who/{other}").decode().split() for other in self._others}
        self._beats = {other: (-1, time.monotonic()) for other in self._others}
        self._lock, self._over, self._beaten = threading.RLock(), threading.Event(), 0.0
        self._silent_s = _SILENT_S
        self._before = signal.getsignal(signal.SIGTERM)
        self._handles = threading.current_thread() is threading.main_thread()
        if self._handles:
            signal.signal(signal.SIGTERM, self._asked_to_end)
        self._thread = threading.Thread(target=self._run, name="cpikan-ranks", daemon=True)
        self._thread.start()

    def explain(self) -> None:
        """Wait until it is known who has died, as a connection has broken, and end; returns where nobody has."""
        here = all(host == socket.gethostname() for host, _ in self._hosts.values())
        self._silent_s = _BROKEN_S
        until = time.monotonic() + _TELL_S + (0.0 if here else _BROKEN_S)
        while time.monotonic() < until:
            self._look()
            time.sleep(_LOOK_S)

    def leave(self, failure: str | None) -> bool:
        """Say that this process ends by itself; tell whether process 0 fails with the same words."""
        self._over.set()
        self._thread.join()
        if self._handles:
            signal.signal(signal.SIGTERM, self._before)
        with contextlib.suppress(RuntimeError):
            self._store.set(f"end/{self._rank}", _LEFT if failure is None else _FAILED + failure)
            waits = timedelta(seconds=_SILENT_S if failure is None else _TELL_S)
            if self._rank == 0:  # it may keep the store that the others want to say it to
                self._store.wait([f"end/{other}" for other in self._others], waits)
            elif failure is not None:
                self._store.wait(["end/0"], waits)
                return self._end_of(0) == _FAILED + failure
        return False

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self._look()

    def _look(self) -> None:
        """End this process where another has died, or has failed."""
        with self._lock:
            gone = [other for other in self._others if not self._lives(other)]
            ends = {other: self._end_of(other) for other in self._others}
            dead = [other for other in gone if ends[other] is None]
            if dead:
                self._end_all(dead)
            if any(end is not None and end.startswith(_FAILED) for end in ends.values()):
                time.sleep(_TELL_S)  # this one may be about to fail with words of its own
                if not self._over.is_set():
                    os._exit(InputError.exit_code)

    def _end_of(self, other: int) -> str | None:
        """Give how a process said that it ends, None for one that has not."""
        try:
            return self._store.get(f"end/{other}").decode() if self._store.check([f"end/{other}"]) else None
        except RuntimeError:  # the store has gone with process 0, or with torchrun
            return None

    def _lives(self, other: int) -> bool:
        host, number = self._hosts[other]
        if host == socket.gethostname():
            return _runs(int(number))
        return self._beats_on(other)

    def _beats_on(self, other: int) -> bool:
        """Give a sign of life, and look for another's."""
        now = time.monotonic()
        with contextlib.suppress(RuntimeError):
            if now - self._beaten > _BEAT_S:
                self._store.add(f"beat/{self._rank}", 1)
                self._beaten = now
            count = self._store.add(f"beat/{other}", 0)
            if count != self._beats[other][0]:
                self._beats[other] = (count, now)
        return now - self._beats[other][1] < self._silent_s

    def _end_all(self, dead: list[int]) -> None:
        if self._rank < min(set(self._others) - set(dead), default=self._rank + 1):
            names = ", ".join(f"{one} (number {self._hosts[one][1]} on {self._hosts[one][0]})" for one in dead)
            say(
                one_line(
                    f"cpikan: error: process {names} has ended, killed or out of memory perhaps: all others stop; start again "
                    "with --resume where there is a checkpoint, with any number of processes"
                )
            )
        os._exit(InputError.exit_code)

    def _asked_to_end(self, number: int, frame: FrameType | None) -> None:
        """End as asked (SIGTERM), after a look at whether that is because another has died."""
        self._look()
        os._exit(128 + number)


def _runs(number: int) -> bool:
    """Tell whether there is a process of that number which still runs; one that has ended stays until its parent looks."""
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    return False
