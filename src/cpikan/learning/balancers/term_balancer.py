"""TermBalancer: a factor of the cost of every term, that follows gradients or losses on the way."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES, MeanSquares
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, Term

_LEAST = 1e-8  # of the mean share: what is below is raised to it, so that no term is ever lost
Shares = dict[str, float]


@dataclass(frozen=True)
class TermBalancer(MeanSquares, ABC):
    """Multiply the cost of every term by a share that changes every ``every`` steps.

    The papers' weights multiply losses, ours residuals: a share s is a weight of sqrt(s). It stands on the weights that
    ``start`` gives, and a condition's own weight multiplies both, which the shares do not see. State: ``start`` and ``shares``
    by the names of terms, and what the balancer itself remembers.
    """

    every: int = 10
    start: ClassVar[MeanSquares] = MEAN_SQUARES
    of_densities: ClassVar[bool] = False

    def init(self, objective: Objective, field: nn.Module) -> tuple[Objective, State]:
        """Weigh the terms at the start; raises InputError for a density where losses have to be sums of squares."""
        for term in objective.terms:
            if term.kind == "density" and not self.of_densities:
                raise InputError(
                    f"{term.name} is a density, whose integral may have any sign: {type(self).__name__} needs residuals, "
                    "give LearningRateAnnealing, KernelTraces or MeanSquares"
                )
        plain = self.start.init(_without_user_weights(objective), field)[0]
        start = {term.name: plain.weights[term.name] / _share(term, plain) for term in plain.terms}
        return self.update(objective, field, {"start": start})

    def update(self, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Weigh the terms anew; where losses or gradients are not finite, weights stay."""
        start = state["start"]
        plain = _without_user_weights(objective)
        plain = plain.reweighted({term.name: start[term.name] * _share(term, plain) for term in plain.terms})
        shares, more = self.shares(plain, field, state)
        if not all(map(math.isfinite, shares.values())) and "shares" in state:
            return objective, state
        weights = {}
        for term in objective.terms:
            share = shares[term.name] ** (0.5 if term.kind == "residual" else 1.0)
            weights[term.name] = term.user_weight * plain.weights[term.name] * share
        return objective.reweighted(weights), {"start": start, "shares": shares, **more}

    @abstractmethod
    def shares(self, plain: Objective, field: nn.Module, state: State) -> tuple[Shares, State]:
        """Find the shares from the objective with weights of the start alone; ``state`` has no ``shares`` at first."""


def _without_user_weights(objective: Objective) -> Objective:
    return replace(objective, terms=tuple(replace(term, user_weight=1.0) for term in objective.terms))


def _share(term: Term, objective: Objective) -> float:
    """Give what makes a sum over points a mean, for the weight of a residual."""
    return objective.sets[term.name].rows ** -0.5 if term.kind == "residual" else 1.0


def losses(plain: Objective, field: nn.Module) -> Tensor:
    """Evaluate the cost of every term, (m,), without a graph."""
    with torch.no_grad():
        return torch.stack([value.detach().cpu() for value in plain.values(field).values()])


def normalised(shares: Tensor) -> Tensor:
    """Make shares (m,) positive with the sum m."""
    mean = shares / shares.mean()
    raised = mean.clamp_min(_LEAST)
    return raised / raised.mean()


def named(plain: Objective, values: Tensor) -> Shares:
    """Name values (m,) by the terms."""
    return {term.name: float(value) for term, value in zip(plain.terms, values, strict=True)}


def unnamed(plain: Objective, values: Mapping[str, float]) -> Tensor:
    """Put values by the names of terms in the order of terms, (m,)."""
    return torch.tensor([values[term.name] for term in plain.terms], dtype=torch.float64)


def present_shares(plain: Objective, state: State) -> Tensor:
    """Give the shares of the state, (m,), or ones at the start."""
    return unnamed(plain, state["shares"]) if "shares" in state else torch.ones(len(plain.terms), dtype=torch.float64)


def felt(sizes: Tensor) -> Tensor:
    """Tell which gradients are there at all: others, as that of a wall that is met exactly, say nothing of their scale."""
    largest = float(sizes.max())
    return (
        sizes > 1e-12 * largest if math.isfinite(largest) and largest > 0 else torch.zeros_like(sizes, dtype=torch.bool)
    )
