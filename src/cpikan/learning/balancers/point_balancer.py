"""PointBalancer: a weight of every point of the terms that are fitted, beside what a sampler has put there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.balancers.mean_squares import MeanSquares
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, Term

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class PointBalancer(MeanSquares, ABC):
    """Weigh residuals point by point, on the weights of terms that ``start`` gives.

    The weights multiply ``PointSet.weight``, and so are squared in the cost. Held-out points have none: the best state is kept
    by one yardstick. State: ``points``, the weights (n,) by the names of terms, ``given``, what a sampler had put there, and
    what the balancer itself remembers. On points that a sampler moves, weights are those of the nearest points before.
    """

    every: int = 10
    start: ClassVar[MeanSquares] = KERNEL_TRACES

    def init(self, objective: Objective, field: nn.Module) -> tuple[Objective, State]:
        """Weigh the terms, and their points, at the start; raises InputError for densities and integrals."""
        for term in objective.terms:
            if term.kind == "density":
                raise InputError(
                    f"{term.name} is a density, which has no residuals at points: {type(self).__name__} cannot weigh it, "
                    "give a balancer of terms"
                )
            if objective.sets[term.name].tests is not None:
                raise InputError(
                    f"{term.name} is made of integrals over elements, not of points: {type(self).__name__} cannot weigh it, "
                    "give a balancer of terms"
                )
        plain = self.start.init(objective, field)[0]
        weights, more = self.weights(plain, field, {})
        return self._laid(plain, weights, more)

    def update(self, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Weigh the points anew; where residuals are not finite, weights stay."""
        plain = self.lifted(objective, state)
        weights, more = self.weights(plain, field, state)
        if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
            return objective, state
        return self._laid(plain, weights, more)

    @abstractmethod
    def weights(self, plain: Objective, field: nn.Module, state: State) -> tuple[Weights, State]:
        """Find weights (n,) for some or all terms, on an objective without them; ``state`` is empty at first."""

    def lifted(self, objective: Objective, state: State) -> Objective:
        """Take the weights off the points: what a sampler had put there is left."""
        sets, given = dict(objective.sets), state["given"]
        for name in state["points"]:
            sets[name] = sets[name]._replace(weight=given.get(name))
        return replace(objective, sets=sets)

    def moved(self, before: Objective, objective: Objective, state: State) -> tuple[Objective, State]:
        """Give new points the weights of the nearest points before."""
        weights = {}
        for name, weight in state["points"].items():
            old, new = before.sets[name].points, objective.sets[name].points
            weights[name] = weight if torch.equal(old, new) else weight[_nearest(old, new)]
        more = {name: value for name, value in state.items() if name not in ("points", "given")}
        return self._laid(objective, weights, more)

    def _laid(self, plain: Objective, weights: Weights, more: State) -> tuple[Objective, State]:
        sets, given = dict(plain.sets), {}
        for name, weight in weights.items():
            own = sets[name].weight
            if own is not None:
                given[name] = own
            sets[name] = sets[name]._replace(weight=weight if own is None else own * weight)
        return replace(plain, sets=sets), {"points": weights, "given": given, **more}


def present_weights(plain: Objective, state: State, term: Term) -> Tensor:
    """Give the weights of a term's points in the state, or ones at the start, (n,): of its rows where it couples points."""
    found: Mapping[str, Tensor] = state.get("points", {})
    at = plain.sets[term.name]
    return found.get(term.name, at.points.new_ones(at.rows))


def squares(plain: Objective, field: nn.Module, term: Term, *, bare: bool) -> Tensor:
    """Sum the squared residuals of a term at every point, (n,); ``bare``: without what a sampler has put there."""
    at = plain.sets[term.name]
    with torch.no_grad():
        found = term.at(field, at._replace(weight=None) if bare else at)
        return torch.stack(found).square().sum(dim=0)


def relative(sizes: Tensor) -> Tensor:
    """Divide sizes (n,) by the largest; ones where all vanish."""
    largest = sizes.max() if len(sizes) else sizes.new_ones(())
    return sizes / largest if float(largest) != 0 else torch.ones_like(sizes)


def _nearest(old: Tensor, new: Tensor) -> Tensor:
    """Find the nearest old point of every new one, by the extent of the old points along each axis."""
    extent = old.amax(dim=0) - old.amin(dim=0)
    extent = torch.where(extent > 0, extent, torch.ones_like(extent))
    _, index = cKDTree((old / extent).cpu().numpy()).query((new / extent).cpu().numpy())
    return torch.from_numpy(index).to(old.device)
