"""Dual cone: the gradient of the cost, brought to where neither the equation nor the conditions grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from cpikan.errors import unknown_name
from cpikan.learning.directions.direction import Direction
from cpikan.learning.methods.method import State

Rule = Literal["projection", "average", "centre"]
_OPPOSED = -1 + 1e-8  # cosine at which no direction lowers both


@dataclass(frozen=True)
class DualCone(Direction):
    """Follow the sum of all gradients where it lowers both the equation and the conditions, else a direction that does.

    Dual cone gradient descent (Hwang and Lim, NeurIPS 2024), for the summed gradients of equations and of conditions.
    "projection" takes away what one loses to the other, "average" is the mean of both such, and "centre" projects, always, on
    the direction of equal angles. Zero where the two are opposed; the sum where one of them vanishes.
    """

    rule: Rule = "centre"

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise unknown_name("rule of the dual cone", self.rule, get_args(Rule))

    def combine(
        self, gradients: Float[Tensor, "m p"], inside: Sequence[bool], state: State
    ) -> tuple[Float[Tensor, " p"], State]:
        """Combine the gradients."""
        marks = torch.tensor(list(inside))
        return dual_cone(gradients[marks].sum(dim=0), gradients[~marks].sum(dim=0), self.rule), state


def dual_cone(r: Float[Tensor, " p"], b: Float[Tensor, " p"], rule: Rule) -> Float[Tensor, " p"]:
    """Bring r + b into the dual cone of two gradients (P,)."""
    total, sizes, product = r + b, (float(r.norm()), float(b.norm())), float(r @ b)
    if min(sizes) == 0:
        return total
    if product / (sizes[0] * sizes[1]) < _OPPOSED:
        return torch.zeros_like(total)
    if rule == "centre":
        centre = r / sizes[0] + b / sizes[1]
        return float(centre @ total) / float(centre @ centre) * centre
    against_b, against_r = float(total @ b) < 0, float(total @ r) < 0
    if not (against_b or against_r):
        return total
    without_b, without_r = r - product / sizes[1] ** 2 * b, b - product / sizes[0] ** 2 * r
    if rule == "average":
        return 0.5 * (without_b + without_r)
    return without_b if against_b else without_r
