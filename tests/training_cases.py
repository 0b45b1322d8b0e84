"""Small patches with a truth, feeds of them, and a tiny network: what the tests of training are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from cpikan.images.features import FeatureSpec, PatchBatch, Planes, stack_patches
from cpikan.images.losses.kinds import build_losses
from cpikan.images.models.unet import UNet
from cpikan.images.training.config import TrainConfig, config_of
from cpikan.images.training.engine import Engine
from cpikan.images.training.loop import Task, Trainer
from cpikan.images.training.transform import PatchTransform

SIZE, HALF_WAVE_NM = 16, 300.0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small run faster on one thread, the more so beside other work; imported by the tests of training."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def patch(seed: int, size: int = SIZE) -> PatchBatch:
    """One patch: a slope, noise of a sigma of its own, a few wrong orders, a random share of it valid."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    truth = (0.3 * rows + 0.2 * columns).float() * torch.rand((), generator=draw)
    sigma = torch.full((size, size), float(2 + 3 * torch.rand((), generator=draw)))
    wrong = torch.rand(size, size, generator=draw) < 0.02
    height = truth + sigma * torch.randn(size, size, generator=draw) + HALF_WAVE_NM * wrong
    valid = torch.rand(size, size, generator=draw) < torch.rand((), generator=draw).clamp_min(0.2)
    height = torch.where(valid, height, torch.nan)
    return PatchBatch(
        planes=Planes(height[None], sigma[None], valid[None]),
        unit_nm=sigma[:1, 0],
        half_wave_nm=torch.tensor([HALF_WAVE_NM]),
        place=torch.tensor([[0, 0, seed]]),
        truth_nm=truth[None],
    )


def patches(first: int, count: int, size: int = SIZE) -> PatchBatch:
    """Several patches as one batch."""
    return stack_patches([patch(first + number, size) for number in range(count)])


class ListFeed:
    """Patches of numbers, ``batch`` of them at a time, shared out among ``ranks``; the same in every process."""

    def __init__(self, count: int = 10, batch: int = 4, held_out: int = 4, rank: int = 0, ranks: int = 1) -> None:
        self._groups = [list(range(at, min(at + batch, count))) for at in range(0, count, batch)]
        self._held_out, self._rank, self._ranks = held_out, rank, ranks
        self.per_epoch = len(self._groups)

    def batches(self, epoch: int, first: int) -> Iterator[PatchBatch | None]:
        for group in self._groups[first:]:
            mine = group[self._rank :: self._ranks]
            yield stack_patches([patch(1000 * epoch + number) for number in mine]) if mine else None

    def validation(self) -> Iterator[PatchBatch | None]:
        mine = range(self._rank, self._held_out, self._ranks)
        if mine:
            yield stack_patches([patch(90_000 + number) for number in mine])


def tiny(seed: int = 0, spec: FeatureSpec | None = None) -> UNet:
    """A U-Net of two levels whose answer is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNet((spec or FeatureSpec()).channels, 3, (4, 6))
        torch.nn.init.normal_(network.unfold.weight, std=0.1)
    return network


def config(**tables: Any) -> TrainConfig:
    """A config for the feed above; tables are merged into [training] and [optimizer] of a short run."""
    training = {"steps": 12, "validate_steps": 4, "checkpoint_steps": 3, "device": "cpu", **tables.pop("training", {})}
    optimizer = {"rate": 3e-3, "warmup_steps": 2, **tables.pop("optimizer", {})}
    return config_of({"training": training, "optimizer": optimizer, "patches": {"size": SIZE}, **tables})


def trainer(
    told: TrainConfig,
    feed: Any = None,
    *,
    store: Any = None,
    log: Any = None,
    losses: Sequence[Any] | None = None,
    network: Any = None,
    curriculum: Any = None,
) -> Trainer:
    """A trainer of the tiny network on ``feed``."""
    engine = Engine(told)
    found = feed or ListFeed(rank=engine.rank, ranks=engine.processes)
    terms = build_losses(told.loss) if losses is None else losses
    transform = PatchTransform(told.features, told.training.recorrupt, curriculum)
    task = Task(network or tiny(told.seed, told.features), told.features, terms, found, transform, curriculum)
    return Trainer(task, told, engine, store, log)


def without_held_out(told: TrainConfig) -> TrainConfig:
    """No validation."""
    return replace(told, data=replace(told.data, validation_patches=0))
