"""The memory a run really owns: anonymous pages, without memory-mapped file pages."""

from __future__ import annotations

import sys
import threading


def anonymous_mib() -> float:
    """Read this process's anonymous resident memory now, in MiB (RssAnon; off Linux the whole resident set)."""
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) / 1024
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


class PeakMemory:
    """Watch anonymous memory while the ``with`` block runs; ``mib`` is the largest value seen."""

    def __init__(self, every_s: float = 0.02) -> None:
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cpikan-memory", daemon=True)
        self.mib = 0.0

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.mib = max(self.mib, anonymous_mib())

    def __enter__(self) -> PeakMemory:
        self.mib = anonymous_mib()
        self._thread.start()
        return self

    def peak(self) -> float:
        """Return the largest anonymous memory up to now, in MiB."""
        self.mib = max(self.mib, anonymous_mib())
        return self.mib

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._thread.join()
        self.mib = max(self.mib, anonymous_mib())
