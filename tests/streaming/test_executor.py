"""Executors: one contract for the calling thread, threads and processes; work that cannot travel, processes that die."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import psutil
import pytest
from threadpoolctl import threadpool_info

from cpikan.errors import InputError
from cpikan.streaming.engine import split_bands, stream_through
from cpikan.streaming.executor import ProcessExecutor, SerialExecutor, ThreadExecutor

pytestmark = pytest.mark.timeout(120)  # a hang is a failure


def square(number):
    if number < 0:
        raise KeyError(f"no square of {number}")
    return number * number


def slow_if_even(number):
    time.sleep(0.02 * (number % 2 == 0))
    return number


def dies(number):
    os._exit(3)


def blas_threads(number):
    import numpy as np

    np.linalg.norm(np.eye(3))
    return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]


class Numbered:
    """Work that is told the number of its process."""

    def __init__(self):
        self.number = -1

    def for_process(self, number):
        self.number = number
        return self

    def __call__(self, item):
        time.sleep(0.02)  # so that no process has done all items before the other is there
        return self.number


class Contract:
    """What every executor does; a subclass makes one that is shared by its tests."""

    @staticmethod
    def make():
        raise AssertionError

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls):
        with cls.make() as executor:
            yield executor

    def test_results_come_in_order_of_the_items(self, executor):
        assert list(executor.map(slow_if_even, range(12))) == list(range(12))
        assert list(executor.map(square, iter([3, 1, 2]))) == [9, 1, 4]
        assert list(executor.map(square, [])) == []

    def test_no_more_items_are_taken_than_it_says(self, executor):
        taken, given = [], 0

        def items():
            for number in range(20):
                taken.append(number)
                assert len(taken) - given <= executor.in_flight
                yield number

        for given, result in enumerate(executor.map(square, items()), start=1):
            assert result == (given - 1) ** 2
            assert len(taken) <= given - 1 + executor.in_flight
        assert len(taken) == 20
        assert executor.size <= executor.in_flight <= executor.size + 1

    def test_the_first_failure_in_order_is_raised_and_ends_the_map(self, executor):
        taken, results = [], []
        numbers = [1, 2, -3, 4, -5, *range(100)]
        with pytest.raises(KeyError, match="no square of -3"):
            results.extend(executor.map(square, (taken.append(n) or n for n in numbers)))
        assert results == [1, 4]
        assert len(taken) <= 3 + executor.in_flight
        assert list(executor.map(square, [5])) == [25]  # it can be used again

    def test_a_failing_source_of_items_is_raised(self, executor):
        def items():
            yield 1
            raise OSError("disk gone")

        with pytest.raises(OSError, match="disk gone"):
            list(executor.map(square, items()))

    def test_a_map_may_be_left_early(self, executor):
        results = executor.map(square, range(1000))
        assert [next(results), next(results)] == [0, 1]
        results.close()
        assert list(executor.map(square, [7])) == [49]

    def test_it_works_on_the_bands_of_a_stream(self, executor):
        written = []

        def transform(items):
            return executor.map(square, (item for _, item in items))

        stream_through(
            split_bands(30, 1), lambda b: b.index, transform, lambda b, r: written.append((b.index, r)), depth=1
        )
        assert written == [(k, k * k) for k in range(30)]
        with pytest.raises(KeyError, match="no square of -4"):
            stream_through(split_bands(30, 1), lambda b: -b.index if b.index == 4 else 1, transform, lambda b, r: None)


class TestSerial(Contract):
    make = SerialExecutor

    def test_it_works_in_the_calling_thread_when_asked(self):
        executor, done = SerialExecutor(), []
        results = executor.map(lambda n: done.append((n, threading.get_ident())), range(3))
        assert done == []
        next(results)
        assert done == [(0, threading.get_ident())]


class TestThreads(Contract):
    @staticmethod
    def make():
        return ThreadExecutor(3)

    def test_items_are_worked_on_at_the_same_time(self, executor):
        """Each item waits for the two others: with fewer threads this would time out."""
        meeting = threading.Barrier(3, timeout=30)
        assert sorted(executor.map(lambda _: meeting.wait(), range(6))) == [0, 0, 1, 1, 2, 2]

    def test_no_thread_stays(self):
        with ThreadExecutor(2, "cpikan-leaves") as executor:
            list(executor.map(square, range(4)))
        assert not [t for t in threading.enumerate() if t.name.startswith("cpikan-leaves")]


class TestProcesses(Contract):
    @staticmethod
    def make():
        return ProcessExecutor(2)

    def test_work_is_done_elsewhere_on_the_threads_it_may_use(self, executor):
        counts = list(executor.map(blas_threads, range(3)))
        assert all(set(found) <= {1} for found in counts)
        assert os.getpid() not in set(executor.map(_pid, range(4)))

    def test_every_process_is_told_a_number_of_its_own(self, executor):
        assert set(executor.map(Numbered(), range(40))) == {0, 1}

    def test_processes_end_with_their_context(self):
        with ProcessExecutor(2) as executor:
            started = set(executor.map(_pid, range(8)))
        assert not any(psutil.pid_exists(pid) for pid in started)

    def test_work_that_cannot_travel_is_named_at_once(self):
        with ProcessExecutor(2) as executor, pytest.raises(InputError, match="cannot be sent to other processes"):
            executor.map(lambda number: number, [1])

    def test_a_process_that_dies_is_named(self):
        with ProcessExecutor(2) as executor, pytest.raises(InputError, match="a process of the run ended by itself"):
            list(executor.map(dies, [1]))

    def test_a_pool_that_broke_before_the_next_item_is_named_too(self, executor, monkeypatch):
        def broken(self, *given):
            raise BrokenProcessPool("a child process terminated abruptly")

        list(executor.map(square, [1]))
        monkeypatch.setattr("concurrent.futures.process.ProcessPoolExecutor.submit", broken)
        with pytest.raises(InputError, match="a process of the run ended by itself"):
            list(executor.map(square, [2]))

    def test_processes_end_with_the_one_that_started_them(self):
        script = """
            import os, sys
            from cpikan.streaming.executor import ProcessExecutor
            if __name__ == "__main__":
                with ProcessExecutor(2) as executor:
                    results = executor.map(os.getppid, iter(()))
                    list(results)
                    print(*(child.pid for child in __import__("psutil").Process().children()), flush=True)
                    sys.stdin.read()
        """
        run = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        children = [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
        run.kill()
        run.communicate()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert children
        assert not alive


def _pid(item):
    time.sleep(0.01)
    return os.getpid()
