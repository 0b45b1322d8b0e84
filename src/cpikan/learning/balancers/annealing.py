"""Learning-rate annealing: the mean gradient of a condition as large as the largest of the equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from cpikan.errors import InputError
from cpikan.learning.balancers.term_balancer import Shares, TermBalancer, felt, named, present_shares
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective


@dataclass(frozen=True)
class LearningRateAnnealing(TermBalancer):
    """Follow max |grad L_equation| / mean |grad L_i| by a share ``rate`` of the way, for every condition i.

    Wang, Teng and Perdikaris, Understanding and mitigating gradient flow pathologies (2021), algorithm 1. The equation keeps
    its weight; the first shares are the first quotients. A condition without a gradient keeps its share.
    """

    rate: float = 0.1
    of_densities: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise InputError(f"annealing by {self.rate} of the way: give more than 0, at most 1")

    def shares(self, plain: Objective, field: nn.Module, state: State) -> tuple[Shares, State]:
        """Compare gradients by all parameters."""
        gradients = torch.stack(list(plain.gradients(field).values())).abs().cpu()
        inside = torch.tensor([term.inside for term in plain.terms])
        means, largest = gradients.mean(dim=1), gradients.amax(dim=1)
        before, first = present_shares(plain, state), "shares" not in state
        top = largest[inside].max() if bool(inside.any()) else largest.max()
        known = felt(torch.where(inside, largest, means)) & ~inside & (top > 0)
        goal = torch.where(known, top / means.clamp_min(1e-300), before)
        return named(plain, goal if first else before + self.rate * (goal - before)), {}
