"""Adam with clipped gradients, a falling rate, and rollback when the cost is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason

_ROLLBACKS = 3
Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class FirstOrder(Protocol):
    """What methods that follow the gradient share."""

    @property
    def iterations(self) -> int: ...

    @property
    def rate(self) -> float: ...

    @property
    def decay(self) -> float: ...

    @property
    def clip(self) -> float | None: ...


@dataclass(frozen=True)
class Adam:
    """``iterations`` full-batch steps at ``rate``, times ``decay`` every thousand; ``clip`` bounds the gradient's length."""

    iterations: int = 2000
    rate: float = 1e-3
    decay: float = 0.98
    clip: float | None = 1.0
    name: str = "adam"

    def __post_init__(self) -> None:
        check_first_order(self, "Adam")

    def run(self, run: Run) -> StopReason:
        """Step; a cost that is not finite brings the best state back at half the rate, three times."""
        return follow_gradient(run, self, lambda parameters: torch.optim.Adam(parameters, lr=self.rate))


def check_first_order(stage: FirstOrder, name: str) -> None:
    """Raise InputError for no steps and no rate."""
    if stage.iterations < 1 or not stage.rate > 0:
        raise InputError(f"{stage.iterations} steps of {name} at rate {stage.rate}: give at least 1, and more than 0")


def follow_gradient(run: Run, stage: FirstOrder, make: Make) -> StopReason:
    """Full-batch steps of a torch optimizer, begun anew from the best state at half the rate after a cost that is not
    finite, three times; its state is offered for checkpoints."""
    parameters = list(run.field.parameters())
    kept = run.kept()
    step, rate, rollbacks = (kept["step"], kept["rate"], kept["rollbacks"]) if kept else (0, stage.rate, 0)
    optimizer = make(parameters)
    if kept:
        _put_state(optimizer, parameters, kept)
    else:
        run.keep_best()

    def state() -> dict[str, Any]:
        return {"step": step, "rate": rate, "rollbacks": rollbacks, **_state(optimizer, parameters)}

    while step < stage.iterations:
        optimizer.zero_grad()
        cost = 0.5 * run.rows.residuals(run.field).square().sum()
        cost.backward()
        value = float(cost.detach())
        step += 1
        if not math.isfinite(value):
            if rollbacks == _ROLLBACKS:
                return StopReason.DIVERGED
            rollbacks, rate = rollbacks + 1, rate / 2
            run.restore_best()
            optimizer = make(parameters)
            continue
        if stage.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, stage.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate * stage.decay ** ((step - 1) / 1000)
        optimizer.step()
        ended = run.note(value, state=state)
        if ended is not None:
            return ended
    return StopReason.BUDGET


def _state(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> dict[str, Any]:
    """What an optimizer remembers of every parameter, by its number."""
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def _put_state(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], kept: dict[str, Any]) -> None:
    for key, value in kept.items():
        number, dot, name = key.partition(".")
        if dot:
            held = value.clone() if isinstance(value, Tensor) else value
            optimizer.state[parameters[int(number)]][name] = held
