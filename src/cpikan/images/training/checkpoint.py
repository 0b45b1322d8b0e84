"""The state of a training run as a tree of numbers and tensors, as `RunStore` keeps it: taken, put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import ResumeError
from cpikan.images.losses.base import AdaptiveLoss
from cpikan.images.training.step import Terms


class Ema:
    """Weights averaged over steps, w <- d w + (1 - d) now, with d growing to ``decay`` as (1 + n) / (10 + n): a mean over
    the steps so far while they are few (as Polyak & Juditsky, SIAM J. Control Optim. 30, 838 (1992), average all)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Average the weights after a step in."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, value in network.state_dict().items():
            mean = self.weights[name]
            if mean.is_floating_point() or mean.is_complex():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    @contextmanager
    def swapped_in(self, network: nn.Module) -> Iterator[None]:
        """Put the mean weights into the network while the block runs."""
        own = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.weights)
        try:
            yield
        finally:
            network.load_state_dict(own)

    def load(self, count: int, weights: dict[str, Tensor]) -> None:
        """Restore the mean from a kept state."""
        self.count = count
        for name, value in weights.items():
            self.weights[name].copy_(value)


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


State = dict[str, Any]  # leaves are tensors and what JSON holds


def take(position: Position, parts: Parts) -> State:
    """Copy the state: weights, moments, running mean, best weights, multipliers of losses, random numbers, place."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state: State = {
        "position": asdict(position),
        "weights": parts.network.state_dict(),
        "best": parts.best,
        "losses": {loss.name: loss.state_dict() for loss in _adaptive(parts.terms)},
        "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
    }
    if parts.ema is not None:
        state["ema"] = {"count": parts.ema.count, "weights": parts.ema.weights}
    if parts.optimizer is not None:
        moments = parts.optimizer.state_dict()["state"]
        state["moments"] = {str(at): moment for at, moment in moments.items()}
    if parts.scaler is not None:
        state["scaler"] = parts.scaler.state_dict()
    if parts.curriculum is not None:
        state["curriculum"] = parts.curriculum.state_dict()
    copy: State = _copied(state)
    return copy


def put(state: State, parts: Parts) -> Position:
    """Restore all parts from a state and return its position; raises ResumeError where the state does not fit."""
    try:
        put_weights(state, parts)
        for loss in _adaptive(parts.terms):
            loss.load_state_dict(state["losses"][loss.name])
        if parts.curriculum is not None:
            parts.curriculum.load_state_dict(state["curriculum"])
        parts.best = _copied(state["best"])
        torch.set_rng_state(state["random"]["cpu"])
        if torch.cuda.is_available() and len(state["random"]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["random"]["cuda"])
        return Position(**state["position"])
    except (KeyError, TypeError, ValueError, RuntimeError) as failure:
        reason = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
        raise ResumeError(f"the checkpoint does not fit this run ({reason}): begin anew with --overwrite") from failure


def put_weights(state: State, parts: Parts) -> None:
    """Put weights, moments, running mean and scaler back, and nothing else: what a rollback undoes."""
    parts.network.load_state_dict(state["weights"])
    if parts.ema is not None:
        parts.ema.load(state["ema"]["count"], state["ema"]["weights"])
    if parts.optimizer is not None:
        # copies: the optimizer steps its moments in place, the state must stay
        moments = {int(at): _copied(moment) for at, moment in state["moments"].items()}
        parts.optimizer.load_state_dict({**parts.optimizer.state_dict(), "state": moments})
    if parts.scaler is not None:
        parts.scaler.load_state_dict(state["scaler"])


def _copied(tree: Any) -> Any:
    """Copy a tree, so that nothing changes its tensors in place."""
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_copied(value) for value in tree]
    return tree.detach().clone() if isinstance(tree, Tensor) else tree


def _adaptive(terms: Terms) -> list[AdaptiveLoss]:
    """List the losses that remember something: multipliers."""
    return [loss for _, loss in terms if isinstance(loss, AdaptiveLoss)]
