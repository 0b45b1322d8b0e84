"""The loop: groups of batches to steps, validation, best state, rollback, checkpoints, an end with a reason."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.images.features import FeatureSpec, PatchBatch
from cpikan.images.training.checkpoint import Ema, Parts, Position, State, put, put_weights, take
from cpikan.images.training.config import TrainConfig
from cpikan.images.training.engine import Engine
from cpikan.images.training.log import TrainLog
from cpikan.images.training.optimizers import build_optimizer, rate_at
from cpikan.images.training.step import FeatureModel, Terms, evaluate, figures, follow_step, group_gradient, sums
from cpikan.streaming.events import SILENT, Cancelled, Events, ProgressLine
from cpikan.streaming.run_store import RunStore

_SKIPS = 20  # steps in a row that fp16 may skip while it looks for its scale


class Feed(Protocol):
    """This process's patches. ``per_epoch`` batches make an epoch in every process; None stands for one without patches
    here. What a batch holds is decided by its epoch and number alone."""

    per_epoch: int

    def batches(self, epoch: int, first: int) -> Iterator[PatchBatch | None]:
        """Yield the batches of an epoch from number ``first`` on."""

    def validation(self) -> Iterable[PatchBatch | None]:
        """Yield the held-out batches, the same in every call; none where there are none."""


class BatchTransform(Protocol):
    """A change of each batch before the network is shown it: a curriculum or recorruption, or nothing."""

    def apply(self, batch: PatchBatch, key: tuple[int, ...]) -> PatchBatch:
        """Make the batch to learn from; random numbers come from ``key`` alone."""

    def on_validation(self, loss: float, step: int) -> bool:
        """Take note of a validation; True where the transform changed, so that losses before and after do not compare."""

    @property
    def last(self) -> bool:
        """Tell whether no change is to come."""

    @property
    def factor(self) -> int:
        """Return how many pixels of a side are one now."""


@dataclass(frozen=True)
class Task:
    """A network, what it is shown, and what it is to learn from which patches."""

    network: nn.Module
    spec: FeatureSpec
    terms: Terms
    feed: Feed
    transform: BatchTransform
    curriculum: Any = None


@dataclass(frozen=True)
class Trained:
    """The end of a run: ``weights`` are the best on validation (the last without one)."""

    position: Position
    weights: dict[str, Tensor]
    samples_per_second: float
    per_epoch: int


class Trainer:
    """Trains ``task`` as ``config`` says on ``engine``; state goes to ``store``, lines to ``log`` (main process)."""

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        engine: Engine,
        store: RunStore | None = None,
        log: TrainLog | None = None,
    ) -> None:
        self._task, self._config, self._engine = task, config, engine
        self._store, self._log = store, log
        training = config.training
        if training.checkpointing and not hasattr(task.network, "checkpointing"):
            raise InputError(
                "[training] checkpointing = true: this model has no activation checkpointing, set it to false"
            )
        if training.checkpointing:
            task.network.checkpointing = True  # type: ignore[assignment]
        optimizer = build_optimizer(config.optimizer, task.network.parameters())
        network, self._optimizer = engine.prepare(task.network, optimizer)
        self._model = FeatureModel(network, task.spec, config.patches.size)
        ema = Ema(task.network, training.ema) if training.ema else None
        kept = None if engine.owns_moments else self._optimizer
        self._parts = Parts(task.network, kept, task.terms, ema, engine.scaler, task.curriculum)
        self._position = Position()
        self._batches: Iterator[PatchBatch | None] | None = None
        self._events: Events = SILENT

    @property
    def position(self) -> Position:
        """Return where the run is."""
        return self._position

    def resume(self, state: State) -> None:
        """Go on from a state that was stored."""
        self._position = put(state, self._parts)

    def run(self, *, progress: bool | Events = False) -> Trained:
        """Train until something ends it; Ctrl-C, or Events that cancel, leave the last state on disk."""
        first, began = self._position.samples, time.perf_counter()
        at = self._position
        line = ProgressLine("steps", 1) if progress is True and self._engine.main else None
        self._events = line or (SILENT if isinstance(progress, bool) or not self._engine.main else progress)
        self._events.progress("train", at.step, self._config.training.steps)
        self._before = at.seconds - began  # seconds of the runs before, so that a sum gives the whole
        self._good = take(at, self._parts)
        try:
            if at.step == 0 and not at.validation and self._has_validation():
                self._validate()
                self._good = take(at, self._parts)
            while not at.stop_reason:
                self._turn()
                at.stop_reason = at.stop_reason or self._over()
        except (KeyboardInterrupt, Cancelled):
            self._write(self._good)
            raise
        finally:
            if line is not None:
                line.close()
        if at.validation.get("step") != at.step and self._has_validation():
            self._validate()
        at.seconds = self._before + time.perf_counter()
        if self._log is not None:
            self._log.write("end", at.step, reason=at.stop_reason)
        self._keep()
        rate = (at.samples - first) / max(time.perf_counter() - began, 1e-9)
        return Trained(at, self._parts.best or self._eval_weights(), rate, self._task.feed.per_epoch)

    # --- one step ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        at, training = self._position, self._config.training
        group = self._group()
        rate = at.rate_scale * rate_at(self._config.optimizer, at.step, training.steps)
        for entry in self._optimizer.param_groups:
            entry["lr"] = rate
        self._optimizer.zero_grad()
        gradient = group_gradient(self._engine, self._model, self._task.terms, group)
        total = gradient.total
        norm = self._engine.clip(self._model.network, self._config.optimizer.clip)
        if not math.isfinite(total) or not self._usable(norm):
            self._roll_back("loss" if not math.isfinite(total) else "gradient")
            return
        self._optimizer.step()
        follow_step(self._task.terms, gradient.answers)
        if self._parts.ema is not None:
            self._parts.ema.follow(self._task.network)
        at.step += 1
        at.loss = total
        patches = self._count(group)
        at.samples += patches
        if self._log is not None and (at.step % training.log_steps == 0 or at.step == 1):
            self._log.write(
                "step", at.step, epoch=at.epoch, loss=total, rate=rate, gradient_norm=norm, **gradient.values
            )
        self._events.progress("train", at.step, training.steps, loss=total)
        if at.step % training.validate_steps == 0 and self._has_validation():
            self._validate()
        if at.step % training.checkpoint_steps == 0:
            self._keep()
        if self._anywhere(self._events.cancelled()):
            raise Cancelled(f"training was cancelled at step {at.step}; the last state stays and can be resumed")

    def _usable(self, norm: float) -> bool:
        """Tell whether a step may be taken; in fp16 infinite gradients are part of finding the scale, some times."""
        at = self._position
        at.skipped = 0 if math.isfinite(norm) else at.skipped + 1
        return at.skipped == 0 or (self._parts.scaler is not None and at.skipped < _SKIPS)

    def _group(self) -> list[PatchBatch | None]:
        """Take the next batches of the epoch, moved and made ready; an epoch ends with a group that may be incomplete."""
        at = self._position
        if at.batch >= self._task.feed.per_epoch:
            at.epoch, at.batch, self._batches = at.epoch + 1, 0, None
        if self._batches is None:
            self._batches = iter(self._task.feed.batches(at.epoch, at.batch))
        wanted = min(self._config.training.accumulate, self._task.feed.per_epoch - at.batch)
        group: list[PatchBatch | None] = []
        for number in range(wanted):
            batch = next(self._batches, None)
            group.append(None if batch is None else self._ready(batch, (0, at.epoch, at.batch + number)))
        at.batch += wanted
        return group

    def _ready(self, batch: PatchBatch, key: tuple[int, ...]) -> PatchBatch:
        moved = batch.to(self._engine.device, non_blocking=True)
        return self._task.transform.apply(moved, (self._config.seed, self._engine.rank, *key))

    def _count(self, group: list[PatchBatch | None]) -> int:
        mine = torch.tensor(float(sum(len(batch) for batch in group if batch is not None)), device=self._engine.device)
        return int(self._engine.total(mine))

    # --- validation --------------------------------------------------------------------------------------------------

    def _has_validation(self) -> bool:
        return self._config.data.validation_patches > 0

    def _validate(self) -> None:
        at, training = self._position, self._config.training
        values, loss, metrics = self._measure()
        at.validation = {
            "step": at.step,
            "resolution": 1 / self._task.transform.factor,
            "loss": loss,
            **values,
            **figures(metrics),
        }
        if at.step == 0:
            at.first_validation = at.validation
        if self._log is not None:
            self._log.write("validation", **at.validation)
        gained = at.best is None or loss < at.best - training.least_gain * abs(at.best)
        if math.isfinite(loss) and gained:
            at.best, at.best_step, at.stale = loss, at.step, 0
            self._parts.best, at.best_validation = self._eval_weights(), at.validation
        else:
            at.stale += 1
        if at.step and self._task.transform.on_validation(loss, at.step):
            at.best, at.stale = None, 0
            self._note("stage", "the curriculum goes on to its next stage")
        elif training.patience and at.stale >= training.patience and self._task.transform.last:
            at.stop_reason = (
                f"early: {at.stale} validations without a gain of {training.least_gain:g} (relative); the best is of "
                f"step {at.best_step}"
            )

    def _measure(self) -> tuple[dict[str, float], float, Tensor]:
        network = self._task.network
        network.eval()
        held_out = (
            None if batch is None else self._ready(batch, (1, 0, number))
            for number, batch in enumerate(self._task.feed.validation())
        )
        try:
            if self._parts.ema is None:
                return evaluate(self._engine, self._model, self._task.terms, held_out, sums)
            with self._parts.ema.swapped_in(network):
                return evaluate(self._engine, self._model, self._task.terms, held_out, sums)
        finally:
            network.train()

    def _eval_weights(self) -> dict[str, Tensor]:
        """Copy the weights that are validated and kept: the running mean where there is one."""
        held = self._parts.ema.weights if self._parts.ema is not None else self._task.network.state_dict()
        return {name: value.detach().clone() for name, value in held.items()}

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _roll_back(self, what: str) -> None:
        """Go back to the last good weights at half the rate; the patches go on, for the same ones would do the same."""
        at = self._position
        at.skipped = 0
        if at.rollbacks >= self._config.training.rollbacks:
            put_weights(self._good, self._parts)
            at.stop_reason = (
                f"diverged: {what} not finite at step {at.step} after {at.rollbacks} rollbacks; give a lower rate or "
                "more clipping"
            )
            return
        at.rollbacks, at.rate_scale = at.rollbacks + 1, at.rate_scale / 2
        put_weights(self._good, self._parts)
        text = f"{what} not finite at step {at.step}: back to the last good weights, rate times {at.rate_scale:g}"
        self._note("rollback", text)
        self._events.warning(text)

    def _keep(self) -> None:
        """Take the state as good, and write it where that is due."""
        at = self._position
        at.seconds = self._before + time.perf_counter()
        if self._log is not None:
            at.log_bytes = self._log.bytes
        self._good = take(at, self._parts)
        if at.stop_reason or (self._store is not None and self._store.due):
            self._write(self._good)

    def _write(self, state: State) -> None:
        if self._store is not None and self._engine.main:
            self._store.save(state)

    def _note(self, kind: str, text: str) -> None:
        if self._log is not None:
            self._log.write(kind, self._position.step, text=text)

    def _over(self) -> str:
        at, training = self._position, self._config.training
        if at.step >= training.steps:
            return f"all {training.steps} steps done"
        if training.seconds and self._anywhere(self._before + time.perf_counter() >= training.seconds):
            return f"the time limit of {training.seconds:g} s"
        return ""

    def _anywhere(self, said: bool) -> bool:
        """Tell whether ``said`` is true in any process: the same answer in every process."""
        if self._engine.processes == 1:
            return said
        return float(self._engine.total(torch.tensor(float(said), device=self._engine.device))) > 0
