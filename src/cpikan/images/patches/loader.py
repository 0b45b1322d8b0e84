"""Batches of patches, made ahead by threads or processes, from any batch of any epoch on."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from cpikan.errors import InputError
from cpikan.images.batch import PatchBatch, stack_patches
from cpikan.images.patches.dataset import WaferPatchDataset

_PREFETCH = 2


@dataclass(frozen=True)
class PatchLoader:
    """Batches of ``dataset``: ``epoch(e, start=n)`` gives batches n, n + 1, ... of epoch e, the last one maybe smaller.

    ``batch`` is the number of patches (or pairs) of this rank; with ``ranks`` processes that train together, batch n of all
    ranks holds ``batch`` x ``ranks`` patches that follow each other, shared out evenly. What is left at the end of an epoch is
    one more, smaller batch, unless it has fewer patches than there are ranks.

    ``workers`` threads (or ``processes``) make batches ahead, ``prefetch`` of them in flight (default: 2, and one per worker);
    0 makes each batch when it is asked for. ``pin`` puts batches into page-locked memory (default: where a CUDA device is).
    The order of batches depends on neither. Raises InputError for settings that cannot work together.
    """

    dataset: WaferPatchDataset
    batch: int
    workers: int = 2
    prefetch: int | None = None
    pin: bool | None = None
    processes: bool = False
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch {self.batch}: give one patch or more")
        if self.workers < 0:
            raise InputError(f"{self.workers} workers: give 0 (each batch when it is asked for) or more")
        if self.workers == 0 and self.prefetch is not None:
            raise InputError(
                f"prefetch {self.prefetch} without workers: nobody is there to read ahead; give workers, or leave it out"
            )
        if self.workers == 0 and self.processes:
            raise InputError("processes without workers: give workers 1 or more, or leave processes out")
        if self.prefetch is not None and self.prefetch < 1:
            raise InputError(f"prefetch {self.prefetch}: give 1 batch or more")
        if self.pin and not torch.cuda.is_available():
            raise InputError("pin speeds up copies to a CUDA device, and none is there: leave it out")
        if not 0 <= self.rank < self.ranks:
            raise InputError(f"rank {self.rank} of {self.ranks}: ranks count from 0")
        if len(self.dataset) < self.ranks:
            raise InputError(
                f"{len(self.dataset)} patches for {self.ranks} processes: give more patches an epoch, or fewer processes"
            )

    @property
    def ahead(self) -> int:
        """Count the batches that exist at most beside the one in use."""
        return max(_PREFETCH, self.workers) if self.prefetch is None else self.prefetch

    @property
    def pinned(self) -> bool:
        """Tell whether batches lie in page-locked memory."""
        return torch.cuda.is_available() if self.pin is None else self.pin

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        whole, left = divmod(len(self.dataset), self.batch * self.ranks)
        return whole + (left >= self.ranks)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[PatchBatch]:
        """Yield the batches of ``epoch`` from number ``start`` on; stops its threads or processes when it is closed."""
        keys = self.keys(epoch)[start:]
        if self.workers == 0:
            return (self._make(key) for key in keys)
        return self._by_processes(keys) if self.processes else self._by_threads(keys)

    def __iter__(self) -> Iterator[PatchBatch]:
        return self.epoch(0)

    def keys(self, epoch: int) -> list[list[tuple[int, int]]]:
        """List the (epoch, index) of the patches in each batch of an epoch."""
        total, group = len(self.dataset), self.batch * self.ranks
        found = []
        for number in range(len(self)):
            first, last = number * group, min((number + 1) * group, total)
            low, high = (first + (last - first) * part // self.ranks for part in (self.rank, self.rank + 1))
            found.append([(epoch, index) for index in range(low, high)])
        return found

    def _make(self, keys: list[tuple[int, int]]) -> PatchBatch:
        batch = stack_patches([self.dataset[key] for key in keys])
        return batch.pin_memory() if self.pinned else batch

    def _by_threads(self, keys: list[list[tuple[int, int]]]) -> Iterator[PatchBatch]:
        # memory maps are shared by threads as they are: nothing is sent between processes
        with ThreadPoolExecutor(self.workers, thread_name_prefix="cpikan-patches") as pool:
            waiting: deque[Future[PatchBatch]] = deque()
            rest = iter(keys)
            try:
                waiting.extend(pool.submit(self._make, key) for key in itertools.islice(rest, self.ahead))
                while waiting:
                    batch = waiting.popleft().result()
                    waiting.extend(pool.submit(self._make, key) for key in itertools.islice(rest, 1))
                    yield batch
            finally:
                for job in waiting:
                    job.cancel()

    def _by_processes(self, keys: list[list[tuple[int, int]]]) -> Iterator[PatchBatch]:
        loader: DataLoader[PatchBatch] = DataLoader(
            self.dataset,
            batch_sampler=keys,  # of (epoch, index), not of index alone
            num_workers=self.workers,
            prefetch_factor=max(1, -(-self.ahead // self.workers)),
            collate_fn=stack_patches,
            pin_memory=self.pinned,
            multiprocessing_context="spawn",  # a forked process inherits the locks of threads it does not have
        )
        return iter(loader)
