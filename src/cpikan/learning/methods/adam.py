"""Adam with clipped gradients, a falling rate, and half the rate after a cost that is not finite."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.directions.direction import SUM, Direction
from cpikan.learning.methods.method import Method, State
from cpikan.learning.mini_batch import check_batch, mini_batch
from cpikan.learning.objective import Objective
from cpikan.learning.stop_reason import StopReason

_ROLLBACKS = 3


@dataclass(frozen=True)
class FirstOrder(Method):
    """``iterations`` steps of a torch optimizer at ``rate``, times ``decay`` every thousand, on all points or on ``batch``.

    ``batch`` is the number of interior points that every step draws anew. ``clip`` bounds the gradient's length. A cost that is
    not finite begins anew at half the rate, three times. What is followed is the gradient of the cost, or another
    ``direction`` made of the terms' gradients.
    """

    iterations: int = 2000
    rate: float = 1e-3
    decay: float = 0.98
    clip: float | None = 1.0
    name: str = "first order"
    direction: Direction = SUM
    batch: int | None = None
    follows_gradient: ClassVar[bool] = True
    takes_batches: ClassVar[bool] = True
    momentum: ClassVar[bool] = True  # whether the optimizer remembers gradients

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.rate > 0:
            raise InputError(
                f"{self.iterations} steps of {self.name} at rate {self.rate}: give at least 1, and more than 0"
            )
        check_batch(self.batch, self.name)
        if not isinstance(self.direction, Direction):
            raise InputError(f"direction {self.direction!r} of {self.name}: give a Direction, as ConFIG()")
        if self.momentum and self.direction.momentum:
            raise InputError(
                f"{type(self.direction).__name__} in {self.name}: both remember gradients, and the second scales away what the "
                "first has balanced; give GradientDescent (recipe gradient-descent), or ConFIG"
            )

    def along(self, direction: Direction) -> FirstOrder:
        """Follow another direction."""
        return replace(self, direction=direction)

    def batched(self, size: int) -> FirstOrder:
        """Draw so many interior points for every step."""
        return replace(self, batch=size)

    @abstractmethod
    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the torch optimizer."""

    def init(self, objective: Objective, field: nn.Module) -> State:
        """Start without moments."""
        return {"step": 0, "rate": self.rate, "rollbacks": 0}

    def step(self, objective: Objective, field: nn.Module, state: State) -> tuple[State, float]:
        """Follow the direction; without a finite cost the field stays, and moments are forgotten."""
        parameters = list(field.parameters())
        objective = mini_batch(objective, self.batch, state["step"])
        value, direction, kept = self.direction.follow(objective, field, state.get("direction", {}))
        numbers = {name: state[name] for name in ("step", "rate", "rollbacks")}
        numbers["step"] += 1
        if not math.isfinite(value):
            return {**numbers, "rate": state["rate"] / 2, "rollbacks": state["rollbacks"] + 1}, value
        _put_gradient(parameters, direction)
        optimizer = self.optimizer(parameters)
        _put_moments(optimizer, parameters, state)
        if self.clip is not None:
            objective.clip(parameters, self.clip)
        for group in optimizer.param_groups:
            group["lr"] = state["rate"] * self.decay ** (state["step"] / 1000)
        optimizer.step()
        return {**numbers, "direction": kept, **_moments(optimizer, parameters)}, value

    def stop(self, state: State) -> StopReason:
        """Stop after ``iterations`` steps, or where the cost stays without a finite value."""
        if state["rollbacks"] > _ROLLBACKS:
            return StopReason.DIVERGED
        return StopReason.BUDGET if state["step"] >= self.iterations else StopReason.RUNNING


@dataclass(frozen=True)
class Adam(FirstOrder):
    """Adam (Kingma and Ba 2015)."""

    name: str = "adam"

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make Adam."""
        return torch.optim.Adam(parameters, lr=self.rate)


def _put_gradient(parameters: list[nn.Parameter], gradient: Tensor) -> None:
    """Put a vector (P,) where an optimizer looks for the gradient of every parameter."""
    for parameter, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


def _moments(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> dict[str, Any]:
    """Name what an optimizer remembers of every parameter by the parameter's number."""
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def _put_moments(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], state: State) -> None:
    for key, value in state.items():
        number, dot, name = key.partition(".")
        if dot:
            optimizer.state[parameters[int(number)]][name] = value
