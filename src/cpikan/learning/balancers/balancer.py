"""Balancer: weights of the terms of an objective, at the start and anew every so many steps."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import nn

from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective


class Balancer(Protocol):
    """Weights of an objective's terms: at the start, and anew every ``every`` steps (0: never); with a plain state.

    One whose weights climb where the method descends (``ascends``) has a saddle as its goal: it goes with methods that follow
    the gradient alone. ``lifted`` and ``moved`` are called before and after a sampler changes the points: what was put into
    ``PointSet.weight`` is taken off, and is put on the new points.
    """

    ascends: ClassVar[bool]

    @property
    def every(self) -> int: ...

    def init(self, objective: Objective, field: nn.Module) -> tuple[Objective, State]: ...

    def update(self, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]: ...

    def lifted(self, objective: Objective, state: State) -> Objective: ...

    def moved(self, before: Objective, objective: Objective, state: State) -> tuple[Objective, State]: ...
