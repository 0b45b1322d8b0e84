"""Panel: the processes that judge a field together, each at the points that its own subdomains hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.constrained import ConstrainedField
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.levelled import LevelledField
from cpikan.learning.objective import Objective, PointSet
from cpikan.learning.unknowns import network_of
from cpikan.partition import Partition
from cpikan.partition.owners import merges, owners
from cpikan.streaming.ranks import ALONE, Ranks

Found = TypeVar("Found")


@dataclass(frozen=True)
class Panel:
    """Processes that all have the same field and judge it together; without a ``partition`` each judges it as a whole.

    A point belongs to the owner of the box that holds it, one at a cut to that of the box above. Sums and maxima over all
    points are those of one process but for the order of additions.
    """

    ranks: Ranks = ALONE
    partition: Partition[Any] | None = None

    @property
    def alone(self) -> bool:
        """Tell whether this process judges the whole."""
        return self.partition is None or self.ranks.size == 1

    def own(self, objective: Objective) -> Objective:
        """Keep of an objective the points of this process, and the terms that have some."""
        if self.alone:
            return objective
        sets = {term.name: self.taken(objective.sets[term.name]) for term in objective.terms}
        kept = tuple(term for term in objective.terms if len(sets[term.name].points))
        return Objective(kept, sets, objective.weights)

    def taken(self, at: PointSet) -> PointSet:
        """Take the points of this process; those whose residuals are sums over points are the first process's."""
        if self.alone:
            return at
        if at.mix is not None or at.tests is not None:
            return at if self.ranks.rank == 0 else PointSet(at.points[:0])
        return at.taken(self._mine(at.points))

    def points(self, x: Tensor) -> Tensor:
        """Take the points of this process out of (n, d)."""
        return x if self.alone else x[self._mine(x)]

    def total(self, values: Tensor) -> Tensor:
        """Sum numbers over the processes."""
        return values if self.alone else self.ranks.total(values)

    def largest(self, values: Tensor) -> Tensor:
        """Take the largest of the processes, number by number."""
        return values if self.alone else self.ranks.largest(values)

    def norm(self, values: Tensor) -> Tensor:
        """Compute the length of columns (n, ...) over all processes, (...)."""
        return values.norm(dim=0) if self.alone else self.ranks.total(values.square().sum(dim=0)).sqrt()

    def cost(self, objective: Objective, field: nn.Module) -> float:
        """Evaluate the cost of residuals at the points of all."""
        if self.alone:
            with torch.no_grad():
                return float(objective.cost(field))
        return float(self._costs(objective, field).sum())

    def finite_cost(self, objective: Objective, field: nn.Module) -> float:
        """Evaluate the cost of the terms that are finite."""
        if self.alone:
            return objective.finite_cost(field)
        costs = self._costs(objective, field)
        return float(costs[torch.isfinite(costs)].sum())

    def check(self, objective: Objective, field: nn.Module) -> None:
        """Raise InputError for values that are not finite, or that do not follow the field, naming the term."""
        self.agreed(lambda: self.own(objective).check(field))

    def agreed(self, work: Callable[[], Found]) -> Found:
        """Do a piece of work in which processes do not speak; raises in all of them what it raises in the first that fails."""
        if self.alone:
            return work()
        failure: Exception | None = None
        try:
            found = work()
        except (InputError, RuntimeError) as raised:
            failure = raised
        said = "" if failure is None else f"{int(isinstance(failure, InputError))}{failure}"
        first = next((text for text in self.ranks.texts(said) if text), "")
        if first:
            raise (InputError if first[0] == "1" else RuntimeError)(first[1:]) from failure
        return found

    def triangle(self, rows: Tensor) -> Tensor:
        """Factor the rows (n, C) of all processes by QR: R (C, C), whose diagonal is not negative.

        Each factors its own; triangles are joined in pairs (Demmel, Grigori, Hoemmen and Langou, SIAM J. Sci. Comput. 34,
        A206, 2012), and the first process gives the last to all.
        """
        columns = rows.shape[1]
        found = _triangle(rows)
        for first, middle, _ in () if self.alone else merges(self.ranks.rank, self.ranks.size):
            if self.ranks.rank == first:
                found = _triangle(torch.cat([found, self.ranks.receive(middle)]))
            elif self.ranks.rank == middle:
                self.ranks.send(found, first)
                break
        if not self.alone:
            found = self.ranks.joined(found if self.ranks.rank == 0 else rows.new_zeros(columns, columns))
        return torch.where(found.diagonal() < 0, -1.0, 1.0)[:, None] * found

    def _costs(self, objective: Objective, field: nn.Module) -> Tensor:
        """Evaluate the cost of every term, (terms,)."""
        own = self.own(objective)
        here = {term.name for term in own.terms}
        with torch.no_grad():
            found = [float(own.only(term.name).cost(field)) if term.name in here else 0.0 for term in objective.terms]
        return self.total(torch.tensor(found, dtype=torch.float64))

    def _mine(self, x: Tensor) -> Tensor:
        assert self.partition is not None
        places = [np.searchsorted(axis.cuts, x[:, d].numpy(), "right") for d, axis in enumerate(self.partition.axes)]
        boxes = np.ravel_multi_index(tuple(places), self.partition.counts)
        return torch.from_numpy(np.flatnonzero(self._owner[boxes] == self.ranks.rank))

    @cached_property
    def _owner(self) -> np.ndarray:
        assert self.partition is not None
        return np.array(owners([box.position for box in self.partition], self.ranks.size))


SOLE_JUDGE = Panel()


def panel_of(field: nn.Module, ranks: Ranks) -> Panel:
    """Share the judging of a field of subdomains, of the finest level, among processes; each judges any other as a whole."""
    network = network_of(field)
    network = network.network if isinstance(network, ConstrainedField) else network
    network = network.levels[-1] if isinstance(network, LevelledField) else network
    return Panel(ranks, network.partition) if isinstance(network, DecomposedField) else SOLE_JUDGE


def _triangle(rows: Tensor) -> Tensor:
    """Factor rows (n, C), of whom there may be fewer than columns, to R (C, C)."""
    found = torch.linalg.qr(rows, mode="r")[1] if len(rows) else rows
    return torch.cat([found, rows.new_zeros(rows.shape[1] - len(found), rows.shape[1])])
