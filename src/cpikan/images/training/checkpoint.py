"""The state of a training run as numbers and tensors: taken, put back, kept on disk without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import ResumeError
from cpikan.images.training.ema import Ema
from cpikan.images.training.step import Terms


@dataclass
class Position:
    """Where a run is: the next step, the epoch and the batch in it that come next, and what it remembers.

    ``best`` is the least validation loss (of the present curriculum stage), the figures then are ``best_validation``, those
    before the first step ``first_validation``; ``stale`` counts validations without gain,
    ``rate_scale`` is halved by every one of the ``rollbacks``.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    rate_scale: float = 1.0
    rollbacks: int = 0
    skipped: int = 0
    best: float | None = None
    best_step: int = -1
    stale: int = 0
    seconds: float = 0.0
    samples: int = 0
    log_bytes: int = 0
    loss: float | None = None
    validation: dict[str, Any] = field(default_factory=dict)
    first_validation: dict[str, Any] = field(default_factory=dict)
    best_validation: dict[str, Any] = field(default_factory=dict)
    stop_reason: str = ""


@dataclass
class Parts:
    """All that has a state: ``network`` is the bare one; the ``optimizer`` None where another keeps it (DeepSpeed); the scaler
    is that of fp16, ``curriculum`` any with a state."""

    network: nn.Module
    optimizer: torch.optim.Optimizer | None
    terms: Terms
    ema: Ema | None = None
    scaler: Any = None
    curriculum: Any = None
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A state: numbers that JSON holds, and tensors of its own."""

    numbers: dict[str, Any]
    tensors: dict[str, Tensor]


def take(position: Position, parts: Parts) -> Snapshot:
    """The state now: weights, moments, running mean, best weights, multipliers of losses, random numbers, place."""
    tensors: dict[str, Tensor] = {f"weights.{name}": value for name, value in parts.network.state_dict().items()}
    numbers: dict[str, Any] = {"position": asdict(position)}
    tensors |= {f"best.{name}": value for name, value in parts.best.items()}
    if parts.ema is not None:
        numbers["ema"] = parts.ema.count
        tensors |= {f"ema.{name}": value for name, value in parts.ema.weights.items()}
    moments = {} if parts.optimizer is None else parts.optimizer.state_dict()["state"]
    owners = {f"optimizer.{at}": state for at, state in moments.items()}
    owners |= {f"loss.{loss.name}": loss.state_dict() for loss in _stateful(parts.terms)}
    if parts.curriculum is not None:
        owners["curriculum"] = parts.curriculum.state_dict()
    for owner, state in owners.items():
        numbers |= {f"{owner}.{key}": value for key, value in state.items() if not isinstance(value, Tensor)}
        tensors |= {f"{owner}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    if parts.scaler is not None:
        numbers["scaler"] = parts.scaler.state_dict()
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors |= {f"random.cuda{at}": state for at, state in enumerate(torch.cuda.get_rng_state_all())}
    return Snapshot(numbers, {name: value.detach().clone() for name, value in tensors.items()})


def put(snapshot: Snapshot, parts: Parts) -> Position:
    """Put a whole state back; returns where it is. Raises ResumeError where it does not fit."""
    try:
        put_weights(snapshot, parts)
        for loss in _stateful(parts.terms):
            loss.load_state_dict(_owned(snapshot, f"loss.{loss.name}."))
        if parts.curriculum is not None:
            parts.curriculum.load_state_dict(_owned(snapshot, "curriculum."))
        parts.best = _tensors(snapshot, "best.")
        torch.set_rng_state(snapshot.tensors["random.cpu"])
        devices = _tensors(snapshot, "random.cuda")
        if torch.cuda.is_available() and len(devices) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([devices[str(at)] for at in range(len(devices))])
        known = {entry.name for entry in fields(Position)}
        return Position(**{key: value for key, value in snapshot.numbers["position"].items() if key in known})
    except (KeyError, TypeError, ValueError, RuntimeError) as failure:
        reason = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
        raise ResumeError(f"the checkpoint does not fit this run ({reason}): begin anew with --overwrite") from failure


def put_weights(snapshot: Snapshot, parts: Parts) -> None:
    """Put weights, moments, running mean and scaler back, and nothing else: what a rollback undoes."""
    parts.network.load_state_dict(_tensors(snapshot, "weights."))
    if parts.ema is not None:
        parts.ema.load(int(snapshot.numbers["ema"]), _tensors(snapshot, "ema."))
    if parts.optimizer is not None:
        _put_moments(snapshot, parts.optimizer)
    if parts.scaler is not None:
        parts.scaler.load_state_dict(snapshot.numbers["scaler"])


def _put_moments(snapshot: Snapshot, optimizer: torch.optim.Optimizer) -> None:
    table = optimizer.state_dict()
    table["state"] = {}
    for at in range(sum(len(group["params"]) for group in table["param_groups"])):
        state = _owned(snapshot, f"optimizer.{at}.")
        if state:
            # copies: the optimizer steps its moments in place, the snapshot must stay
            table["state"][at] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}
    optimizer.load_state_dict(table)


def _tensors(snapshot: Snapshot, prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in snapshot.tensors.items() if name.startswith(prefix)}


def _owned(snapshot: Snapshot, prefix: str) -> dict[str, Any]:
    numbers: Mapping[str, Any] = snapshot.numbers
    found = {name[len(prefix) :]: value for name, value in numbers.items() if name.startswith(prefix)}
    return {**found, **_tensors(snapshot, prefix)}


def _stateful(terms: Terms) -> list[Any]:
    """The losses that remember something: multipliers."""
    return [loss for _, loss in terms if hasattr(loss, "state_dict") and hasattr(loss, "load_state_dict")]
