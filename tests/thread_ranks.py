"""Ranks as threads of one process, for tests of what several processes do together: no start of processes, and all is seen."""

from __future__ import annotations

import itertools
import threading
from queue import Queue

import torch

WAIT_S = 60.0  # a rank that waits longer has gone another way than the others


class ThreadRanks:
    def __init__(self, rank, size, shared):
        self.rank, self.size, self._shared = rank, size, shared
        self.sent = self.moved = 0

    def _all(self, value):
        self._shared["table"][self.rank] = value
        self._shared["barrier"].wait(WAIT_S)
        found = list(self._shared["table"])
        self._shared["barrier"].wait(WAIT_S)
        return found

    def total(self, values):
        self.sent += values.nbytes * (self.size - 1)
        return sum(self._all(values.clone()))

    def largest(self, values):
        self.sent += values.nbytes * (self.size - 1)
        return torch.stack(self._all(values.clone())).amax(dim=0)

    def joined(self, values):
        self.moved += values.nbytes
        return sum(self._all(values.clone()))

    def first(self, value):
        return self._all(value)[0]

    def texts(self, text):
        return self._all(text)

    def send(self, values, to):
        self.sent += values.nbytes
        self._shared["queues"][self.rank, to].put(values.clone())

    def receive(self, source):
        return self._shared["queues"][source, self.rank].get(timeout=WAIT_S)

    def swap(self, out, into):
        for to, values in out.items():
            self.send(values, to)
        for source, values in into.items():
            got = self.receive(source)
            assert got.shape == values.shape
            assert got.dtype == values.dtype
            values.copy_(got)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        pass


def together(size, work):
    """Call ``work(ranks)`` in as many threads; gives the results in order of rank, or raises the first failure."""
    # made beforehand: two threads that miss the same key of a defaultdict make one each, and one loses what the other put in
    queues = {pair: Queue() for pair in itertools.product(range(size), repeat=2)}
    shared = {"table": [None] * size, "barrier": threading.Barrier(size), "queues": queues}
    results, failures = [None] * size, []

    def run(rank):
        try:
            results[rank] = work(ThreadRanks(rank, size, shared))
        except BaseException as failure:
            failures.append((isinstance(failure, threading.BrokenBarrierError), rank, failure))
            shared["barrier"].abort()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise min(failures, key=lambda one: one[:2])[2]
    return results
