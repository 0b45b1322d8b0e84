"""Method: one step of a minimisation at a time, with a state that is plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn

from cpikan.errors import InputError
from cpikan.learning.objective import Objective
from cpikan.learning.stop_reason import StopReason

# Tensors and plain numbers by name, or further states. What begins with an underscore follows from the field and the
# objective: it is not stored, and is dropped when the objective changes.
State = dict[str, Any]


class Method(ABC):
    """Minimise an objective from where a field is: ``init``, then ``step`` while ``stop`` says RUNNING.

    ``look_every`` is the number of steps between two looks at the held-out residuals, and ``patience`` the number of looks
    without a new best state that ends the minimisation.
    """

    name: str
    look_every: ClassVar[int] = 10  # a look is some fifth of a step: that costs 2 %
    patience: int | None = None
    follows_gradient: ClassVar[bool] = False  # alone, and with a direction
    takes_batches: ClassVar[bool] = False

    @abstractmethod
    def init(self, objective: Objective, field: nn.Module) -> State:
        """Make the state at the start."""

    @abstractmethod
    def step(self, objective: Objective, field: nn.Module, state: State) -> tuple[State, float]:
        """Move the field by one step; gives the new state and the cost, which is not finite where the step failed."""

    def along(self, direction: Any) -> Method:
        """Follow another direction than the gradient's; raises InputError where there is no following one."""
        raise InputError(
            f"{self.name} takes no direction: it solves for its own steps; give Adam, SOAP, Muon or GradientDescent (recipes "
            "adam, soap, muon, gradient-descent)"
        )

    def batched(self, size: int) -> Method:
        """Take a mini-batch of points for every step; raises InputError for a method whose steps need all of them."""
        raise InputError(
            f"{self.name} takes no mini-batches: it compares the costs of steps, which have to be of the same points; give "
            "Adam, SOAP, Muon, GradientDescent or SPRING (recipes adam, soap, muon, gradient-descent, spring)"
        )

    @abstractmethod
    def stop(self, state: State) -> StopReason:
        """Tell whether the minimisation is over, and why."""


def stored(state: State) -> State:
    """Keep what cannot be made again from the field and the objective."""
    return {
        name: stored(value) if isinstance(value, dict) else value
        for name, value in state.items()
        if not name.startswith("_")
    }
