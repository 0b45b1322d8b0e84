"""PCGrad: from every gradient what is against the others is taken away, in random order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cpikan.learning.directions.direction import Direction
from cpikan.learning.methods.method import State


@dataclass(frozen=True)
class PCGrad(Direction):
    """Follow the sum of gradients from which conflicts are projected away (Yu, Kumar, Gupta, Levine, Hausman, Finn 2020).

    The order, drawn anew for every gradient of every step, follows from ``seed`` and the number of steps.
    """

    seed: int = 0

    def combine(
        self, gradients: Float[Tensor, "m p"], inside: Sequence[bool], state: State
    ) -> tuple[Float[Tensor, " p"], State]:
        """Combine the gradients."""
        step = state.get("step", 0)
        chance = torch.Generator().manual_seed(self.seed + 7919 * step)
        total = torch.zeros_like(gradients[0])
        squares = gradients.square().sum(dim=1)
        for number, own in enumerate(gradients):
            for other in torch.randperm(len(gradients), generator=chance).tolist():
                conflict = own @ gradients[other]
                if other != number and float(conflict) < 0:
                    own = own - conflict / squares[other] * gradients[other]
            total = total + own
        return total, {"step": step + 1}
