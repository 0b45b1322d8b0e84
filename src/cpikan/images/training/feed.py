"""Patches of stacks, for training and held out, as the loop takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from cpikan.errors import InputError
from cpikan.images.features import PatchBatch
from cpikan.images.losses.base import Loss
from cpikan.images.patches.dataset import PatchLoader, WaferPatchDataset
from cpikan.images.patches.settings import PatchSettings
from cpikan.images.patches.source import StackSource
from cpikan.images.training.config import TrainConfig
from cpikan.images.training.engine import Engine

_HELD_OUT = 104729  # so that held-out patches are other draws than those of training


class PatchFeed:
    """Patches of ``sources``; validation is on ``held_out``, or on the last rows of the same stacks, the same ones each time.

    Raises InputError where patches do not fit, and where a loss asks for what no stack has.
    """

    def __init__(
        self, sources: Sequence[StackSource], held_out: Sequence[StackSource], config: TrainConfig, engine: Engine
    ) -> None:
        data, settings = config.data, patch_settings(config)
        shared = not held_out and data.validation_patches > 0
        rows = (0.0, 1.0 - data.validation_share) if shared else (0.0, 1.0)
        for source in sources if shared else ():
            if source.shape[0] * data.validation_share < settings.size:
                raise InputError(
                    f"the last {data.validation_share:.3g} of the {source.shape[0]} rows of {source.name} hold no patch of "
                    f"{settings.size}: give a larger validation_share, stacks for validation, or a smaller size"
                )
        training = WaferPatchDataset(sources, replace(settings, rows=rows), data.weights or None)
        rank, ranks = engine.rank, engine.processes
        self._loader = PatchLoader(
            training,
            data.batch,
            workers=data.workers,
            prefetch=data.prefetch,
            processes=data.processes,
            rank=rank,
            ranks=ranks,
        )
        self.per_epoch, self.has_truth = len(self._loader), training.has_truth
        self._held_out = None
        if data.validation_patches:
            plain = replace(
                settings,
                order="random",
                count=data.validation_patches,
                overlap=settings.overlap if settings.pairs else 0,
                rows=(1.0 - data.validation_share, 1.0) if shared else (0.0, 1.0),
                turned=False,
                permuted=False,
                piston_units=0.0,
                seed=settings.seed + _HELD_OUT,
            )
            dataset = WaferPatchDataset(held_out or sources, plain)
            self._held_out = PatchLoader(dataset, data.batch, workers=min(data.workers, 1), rank=rank, ranks=ranks)

    def batches(self, epoch: int, first: int) -> Iterator[PatchBatch]:
        """Yield the batches of an epoch from number ``first`` on."""
        return self._loader.epoch(epoch, first)

    def validation(self) -> Iterable[PatchBatch]:
        """Yield the held-out batches, if any."""
        return () if self._held_out is None else self._held_out.epoch(0)

    def check(self, losses: Sequence[tuple[float, Loss]]) -> None:
        """Raise InputError where a loss needs a truth that no stack has, or joints that random single patches do not have."""
        for _, loss in losses:
            if "truth" in loss.needs and not self.has_truth:
                raise InputError(
                    f"[loss] {loss.name} needs a truth, and no stack has one (truth.npy): train on simulated stacks too, or "
                    "with the losses physics, interface, smoothness"
                )


def patch_settings(config: TrainConfig) -> PatchSettings:
    """Complete the patches of a config with what its features and losses ask for."""
    spec = config.features
    return replace(
        config.patches,
        frames="physics" in config.loss or config.training.recorrupt > 0,
        phases=bool(spec.wavelengths_nm),
        modulation=spec.modulation,
        finest_period=min(spec.periods),
        seed=config.seed,
    )


def reads_frames(config: TrainConfig) -> bool:
    """Tell whether stacks must be opened with their frames."""
    return patch_settings(config).wanted.reads_frames
