"""Patches of many stacks as a data set, which follows from seed, epoch and index alone, and its batches, made ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cpikan.errors import InputError, check_type
from cpikan.images.features import PatchBatch, stack_patches
from cpikan.images.patches.augment import SYMMETRIES, Symmetry, add_piston, apply_symmetry, corrupt_orders, reorder
from cpikan.images.patches.places import Place, covering_count, joint_of, random_place, regular_places, row_range
from cpikan.images.patches.settings import PatchSettings
from cpikan.images.patches.source import StackSource
from cpikan.streaming.executor import ThreadExecutor

__all__ = ["PatchSettings", "WaferPatchDataset"]

_SHUFFLE, _PLACE, _CHANGE, _CORRUPT = 1, 2, 3, 4  # streams of random numbers


class WaferPatchDataset(Dataset[PatchBatch]):
    """Patches of ``sources`` as batches of one patch (of two neighbours with ``settings.pairs``).

    ``dataset[epoch, index]`` is the same patch whenever and in whichever process it is asked for; ``dataset[index]`` is that of
    epoch 0. Of random patches each comes from a stack drawn by ``weights`` (default: in proportion to the area), so that real
    and simulated stacks can be mixed. Calls may come from several threads. Raises InputError where patches do not fit the
    images, stacks do not fit each other, or nothing is measured.
    """

    def __init__(
        self, sources: Sequence[StackSource], settings: PatchSettings, weights: Sequence[float] | None = None
    ) -> None:
        self.sources, self.settings = list(sources), settings
        check_type("settings", settings, PatchSettings, "PatchSettings(...)")
        for source in self.sources:
            check_type("a source", source, StackSource, "an opened stack")
        if not self.sources:
            raise InputError("no stacks to take patches from: give one or more")
        _check_alike(self.sources, settings)
        for source in self.sources:
            row_range(source, settings)
            source.prepare(settings.wanted)
        self._shares = _shares(self.sources, settings, weights)
        self._places = regular_places(self.sources, settings) if settings.order == "regular" else []
        if settings.order == "regular" and not self._places:
            raise InputError(
                f"no patch of {settings.size} has {settings.least_valid:.0%} measured pixels: give a smaller size or share"
            )
        covering = sum(covering_count(source, settings) for source in self.sources)
        self._length = len(self._places) or settings.count or covering
        self._order: tuple[int, np.ndarray] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Count the patches (or pairs) of an epoch."""
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __getitem__(self, key: int | tuple[int, int]) -> PatchBatch:
        epoch, index = (0, key) if isinstance(key, int) else key
        if not 0 <= index < self._length:
            raise IndexError(f"patch {index} of {self._length}")
        place = self.place(epoch, index)
        source, size = self.sources[place.source], self.settings.size
        wanted = self.settings.wanted
        batch = stack_patches([source.patch(*corner, size, wanted, place.source) for corner in place.corners])
        if len(place.corners) > 1:
            batch = replace(batch, joints=torch.tensor([joint_of(place.corners, size)]))
        if self.settings.wrong_orders:
            draw = self._draw(_CORRUPT, epoch, index)
            share = float(draw.uniform(0, self.settings.wrong_orders))
            batch = corrupt_orders(batch, place.corners, share, draw)
        return self._augment(batch, source, self._draw(_CHANGE, epoch, index))

    def place(self, epoch: int, index: int) -> Place:
        """Choose where the patch ``index`` of an epoch is cut."""
        if self._places:
            return self._places[self._shuffled(epoch)[index]]
        draw = self._draw(_PLACE, epoch, index)
        number = int(draw.choice(len(self.sources), p=self._shares))
        return random_place(self.sources[number], number, self.settings, draw)

    @property
    def has_truth(self) -> bool:
        """Tell whether any of the stacks has a truth."""
        return any(source.has_truth for source in self.sources)

    def _draw(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.settings.seed, *key))

    def _shuffled(self, epoch: int) -> np.ndarray:
        if not self.settings.shuffle:
            epoch = 0
        with self._lock:
            if self._order is None or self._order[0] != epoch:
                count = len(self._places)
                order = self._draw(_SHUFFLE, epoch).permutation(count) if self.settings.shuffle else np.arange(count)
                self._order = epoch, order
            return self._order[1]

    def _augment(self, batch: PatchBatch, source: StackSource, draw: np.random.Generator) -> PatchBatch:
        """Flip, raise and permute a batch; draws come in one order always, so that one switch does not move the others."""
        settings = self.settings
        number, piston = int(draw.integers(SYMMETRIES)), float(draw.uniform(-1, 1))
        if settings.turned and number:
            batch = apply_symmetry(batch, Symmetry.numbered(number, settings.size))
        if settings.piston_units:
            unit = source.unit_nm(settings.finest_period)
            batch = add_piston(batch, piston * settings.piston_units * unit, source.wavelengths_nm)
        if settings.permuted and batch.frames is not None:
            _, waves, count = batch.frames.step_rad.shape
            order = np.stack([draw.permutation(count) for _ in range(waves)])
            batch = replace(batch, frames=reorder(batch.frames, torch.from_numpy(order)))
        return batch


def _check_alike(sources: list[StackSource], settings: PatchSettings) -> None:
    """Check that patches fit one tensor: frames and phases must have the same numbers of wavelengths and steps."""
    asked = [name for name in ("frames", "phases", "modulation") if getattr(settings, name)]
    if not asked:
        return
    without = [source.name for source in sources if source.frame_shape is None]
    if without:
        raise InputError(
            f"{asked[0]} are asked for, but {without[0]} was opened without frames: open it with frames=True"
        )
    few = [source.name for source in sources if source.frame_shape is not None and source.frame_shape[1] < 3]
    if few and (settings.phases or settings.modulation):
        raise InputError(
            f"{few[0]} has 2 frames per wavelength, which give no {asked[-1]} for each pixel: train without"
        )
    first = sources[0]
    assert first.frame_shape is not None
    for source in sources[1:]:
        assert source.frame_shape is not None
        differ = settings.frames and source.frame_shape != first.frame_shape
        if differ or (settings.phases and source.frame_shape[0] != first.frame_shape[0]):
            mine, other = (
                "{} wavelengths x {} frames".format(*shape) for shape in (first.frame_shape, source.frame_shape)
            )
            raise InputError(
                f"{first.name} has {mine}, {source.name} {other}, which cannot share a batch of {asked[0]}: give stacks "
                "taken alike, or train on heights alone"
            )


def _shares(sources: list[StackSource], settings: PatchSettings, weights: Sequence[float] | None) -> np.ndarray:
    """Compute how often each stack is drawn, summing to one."""
    if weights is None:
        weights = [float(covering_count(source, settings)) for source in sources]
    elif settings.order == "regular":
        raise InputError("regular patches are all taken once: leave the weights out, or ask for random ones")
    values = np.asarray(weights, np.float64)
    if values.shape != (len(sources),) or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise InputError(
            f"weights {list(weights)} for {len(sources)} stacks: give as many numbers, none negative, not all zero"
        )
    return np.asarray(values / values.sum())


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
        with ThreadExecutor(self.workers, "cpikan-patches", self.ahead + 1) as threads:
            yield from threads.map(self._make, keys)

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
