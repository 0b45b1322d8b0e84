"""Direction: what a method follows, made from the gradients of the terms."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective


class Direction(ABC):
    """Combine the gradients of an objective's terms to one; a step goes against it. The state is plain data, empty at first.

    One with ``momentum`` remembers gradients itself, and goes with a method that does not.
    """

    momentum: ClassVar[bool] = False

    def asked(self, count: int, state: State) -> Sequence[int]:
        """List the terms, of so many, whose gradients the next step needs: all, unless said otherwise."""
        return range(count)

    @abstractmethod
    def combine(
        self, gradients: Float[Tensor, "m p"], inside: Sequence[bool], state: State
    ) -> tuple[Float[Tensor, " p"], State]:
        """Make one direction (P,) of the gradients (k, P) of the terms asked for; ``inside`` marks equations, of all terms."""

    def follow(self, objective: Objective, field: nn.Module, state: State) -> tuple[float, Tensor, State]:
        """Evaluate the cost and the direction (P,); where the cost is not finite the direction says nothing."""
        asked = self.asked(len(objective.terms), state)
        cost, gradients = 0.0, []
        for number, term in enumerate(objective.terms):
            share = objective.only(term.name)
            if number in asked:
                value, gradient = share.gradient(field)
                gradients.append(gradient)
            else:
                with torch.no_grad():
                    value = share.cost(field)
            cost += float(value)
        stacked = torch.stack(gradients)
        if not math.isfinite(cost):
            return cost, stacked.sum(dim=0), state
        return cost, *self.combine(stacked, [term.inside for term in objective.terms], state)


@dataclass(frozen=True)
class Sum(Direction):
    """Follow the gradient of the cost, the sum of all."""

    def follow(self, objective: Objective, field: nn.Module, state: State) -> tuple[float, Tensor, State]:
        """Evaluate the cost and its gradient at once."""
        cost, gradient = objective.gradient(field)
        return float(cost), gradient, state

    def combine(
        self, gradients: Float[Tensor, "m p"], inside: Sequence[bool], state: State
    ) -> tuple[Float[Tensor, " p"], State]:
        """Add the gradients."""
        return gradients.sum(dim=0), state


SUM = Sum()
