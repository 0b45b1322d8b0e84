"""ProcessGroup: ranks that torch.distributed joins, gloo for tensors of the CPU and nccl for those of a GPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cpikan.errors import InputError
from cpikan.streaming.rank_watch import RankWatch

_FIND_S = 30.0  # to find each other in
_PATIENCE = timedelta(days=7)  # of one rank with another's work: that a rank is dead is found out by the watch
_HEAD = 3  # numbers before a table: its type, rows and columns
_TYPES = (torch.float64, torch.float32, torch.int64, torch.uint8)


class ProcessGroup:
    """The process with number ``rank`` of ``size``, at MASTER_ADDR and MASTER_PORT.

    Messages are matched by their order, and a wrong size or type would pass unnoticed: a table is sent behind its type and
    shape. A rank that dies ends all others with one line that names it.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.sent, self.moved = rank, size, 0, 0
        self._address = os.environ.get("MASTER_ADDR", "127.0.0.1"), _port()
        _join(rank, size, self._address)
        self._watch = RankWatch(rank, size, self._address)

    def total(self, values: Tensor) -> Tensor:
        """Sum a few numbers over the processes, in their order."""
        return torch.stack(self._everywhere(values)).sum(dim=0)

    def largest(self, values: Tensor) -> Tensor:
        """Take the largest of the processes, number by number."""
        return torch.stack(self._everywhere(values)).amax(dim=0)

    def joined(self, values: Tensor) -> Tensor:
        """Put many numbers together, each of which is zero but in one process: a sum of zeros is exact in any order."""
        found = values.clone()
        with self._speaking():
            dist.all_reduce(found)
        self.moved += values.nbytes
        return found

    def first(self, value: float) -> float:
        """Take the number of process 0."""
        found = torch.tensor([value], dtype=torch.float64)
        with self._speaking():
            dist.broadcast(found, 0)
        self.sent += found.nbytes * (self.size - 1) * (self.rank == 0)
        return float(found)

    def texts(self, text: str) -> list[str]:
        """Collect a text of every process."""
        data = text.encode()
        sizes = [int(one) for one in self._everywhere(torch.tensor([len(data)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else padded[:0]
        found = self._everywhere(padded)
        return [bytes(one[:size].tolist()).decode() for one, size in zip(found, sizes, strict=True)]

    def send(self, values: Tensor, to: int) -> None:
        """Send a table of numbers behind its type and shape."""
        head = torch.tensor([_TYPES.index(values.dtype), *values.shape])
        assert len(head) == _HEAD, "tables have rows and columns"
        with self._speaking():
            dist.send(head, to)
            if values.numel():
                dist.send(values.contiguous(), to)
        self.sent += head.nbytes + values.nbytes

    def receive(self, source: int) -> Tensor:
        """Receive the table that a process sends."""
        head = torch.zeros(_HEAD, dtype=torch.int64)
        with self._speaking():
            dist.recv(head, source)
            kind, rows, columns = head.tolist()
            found = torch.empty(rows, columns, dtype=_TYPES[kind])
            if found.numel():
                dist.recv(found, source)
        return found

    def swap(self, out: Mapping[int, Tensor], into: Mapping[int, Tensor]) -> None:
        """Send tensors to neighbours, and fill those of ``into`` with what they send."""
        work = [dist.P2POp(dist.isend, values.contiguous(), to) for to, values in sorted(out.items())]
        work += [dist.P2POp(dist.irecv, values, source) for source, values in sorted(into.items())]
        with self._speaking():
            for request in dist.batch_isend_irecv(work) if work else ():
                request.wait()
        self.sent += sum(values.nbytes for values in out.values())

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        """End the group; of processes that fail alike only the first says so."""
        known = self._watch.leave(None if failure is None else str(failure))
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
        if known and isinstance(failure, InputError):
            raise SystemExit(failure.exit_code) from failure

    def _everywhere(self, values: Tensor) -> list[Tensor]:
        found = [torch.empty_like(values) for _ in range(self.size)]
        with self._speaking():
            dist.all_gather(found, values.contiguous())
        self.sent += values.nbytes * (self.size - 1)
        return found

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what is raised when another rank has gone into the line that names it."""
        try:
            yield
        except RuntimeError as failure:
            self._watch.explain()
            raise InputError(
                f"the connection to the other processes broke ({str(failure).splitlines()[0][:120]}): start them again, with "
                "--resume where there is a checkpoint"
            ) from failure


def _join(rank: int, size: int, address: tuple[str, int]) -> None:
    """Find the other processes."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
    there = f"{address[0]}:{address[1]}"
    try:
        store = dist.TCPStore(
            *address, size, _hosts_store(rank), timeout=timedelta(seconds=_FIND_S), wait_for_workers=False
        )
        store.set(f"here/{rank}", "")
        _all_here(store, size, there)
        dist.init_process_group(
            backend, store=dist.PrefixStore("group", store), rank=rank, world_size=size, timeout=_PATIENCE
        )
    except (dist.DistNetworkError, dist.DistStoreError) as failure:
        text = str(failure)
        if "EADDRINUSE" in text or "in use" in text:
            raise InputError(
                f"port {address[1]} is in use: give another MASTER_PORT, or start torchrun --standalone"
            ) from failure
        raise InputError(
            f"process {rank} of {size} did not find process 0 at {there} within {_FIND_S:g} s: start all of them with one "
            "MASTER_ADDR and MASTER_PORT"
        ) from failure


def _all_here(store: Any, size: int, there: str) -> None:
    """Wait for all processes; raises InputError that names those that do not come."""
    for rank in range(size):
        try:
            store.wait([f"here/{rank}"], timedelta(seconds=_FIND_S))
        except dist.DistStoreError as failure:
            raise InputError(
                f"process {rank} of {size} did not come to {there} within {_FIND_S:g} s: start all of them"
            ) from failure


def _hosts_store(rank: int) -> bool:
    """Tell whether this process keeps the store: torchrun's agent does, where it says so."""
    return rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _port() -> int:
    text = os.environ.get("MASTER_PORT", "")
    if not text.isdecimal():
        raise InputError(f"MASTER_PORT is {text!r}: start processes by torchrun, which sets it")
    return int(text)
