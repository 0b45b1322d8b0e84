"""Share: the subdomains that this process works on, and what it has to hear of those of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from cpikan.partition.owners import owners
from cpikan.streaming.ranks import ALONE, Ranks


class Share:
    """What a process has of E boxes at ``places`` (E, d), which rows couple in groups, tables (N, M) of their numbers.

    Where groups of two boxes are ``split``, both owners work on them, each on its own side; else a group belongs to the owner
    of its first box.
    """

    def __init__(self, ranks: Ranks, places: Tensor, split: bool) -> None:
        self.ranks, self.split = ranks, split
        self.owner = torch.tensor(owners(places.tolist(), ranks.size))
        self._groups: list[Tensor] = []

    @property
    def alone(self) -> bool:
        """Tell whether there is one process, which has all."""
        return self.ranks.size == 1

    @property
    def mine(self) -> Tensor:
        """List the boxes of this process."""
        return torch.nonzero(self.owner == self.ranks.rank).squeeze(1)

    def near(self, groups: Tensor) -> Tensor:
        """Note groups (N, M) of all processes; gives the numbers of those that this one works on."""
        self._groups.append(groups)
        self.__dict__.pop("_reach", None)  # what was made of fewer groups
        self.__dict__.pop("_needs", None)
        return torch.nonzero(self._worked(groups, self.ranks.rank)).squeeze(1)

    def counted(self, groups: Tensor) -> Tensor:
        """Tell which groups (N, M) this process counts, so that each is counted once, (N,)."""
        return self.owner[groups[:, 0]] == self.ranks.rank

    def divides(self, values: Tensor) -> bool:
        """Tell whether some numbers are those of the boxes, (E, ...), of which each process knows its own."""
        return values.ndim > 1 and len(values) == len(self.owner)

    def squares(self, parts: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Sum the squares of residuals (N, R) of groups (N, M) over all processes."""
        if self.alone:
            return sum(float(values.square().sum()) for _, values in parts)
        total = sum(float(values[self.counted(groups)].square().sum()) for groups, values in parts)
        return float(self.ranks.total(torch.tensor([total], dtype=torch.float64)))

    def means(self, groups: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
        """Average each of some quantities (N, B) of groups (N, M) over those of all processes."""
        if self.alone:
            return [one.mean() for one in values]
        counted = self.counted(groups)
        chosen = [one[counted] for one in values]
        sums = torch.stack([*(one.sum() for one in chosen), torch.tensor(float(chosen[0].numel())).double()])
        *totals, count = self.ranks.total(sums)
        return [one / count for one in totals]

    def reach(self, box: int) -> tuple[int, int]:
        """Give the first and the last process whose rows touch a box."""
        first, last = self._reach
        return int(first[box]), int(last[box])

    @property
    def border(self) -> Tensor:
        """List the boxes that more than one process touches."""
        first, last = self._reach
        return torch.nonzero(first != last).squeeze(1)

    def spread(self, values: Tensor) -> None:
        """Put what neighbours have found for their boxes, (E, ...), where this process works on them too."""
        here = self.ranks.rank
        out = {to: values[self._asked(here, to)] for to in range(self.ranks.size) if len(self._asked(here, to))}
        into = {
            source: torch.empty_like(values[self._asked(source, here)])
            for source in range(self.ranks.size)
            if len(self._asked(source, here))
        }
        self.ranks.swap(out, into)
        for source, part in into.items():
            values[self._asked(source, here)] = part

    def whole(self, values: Tensor) -> Tensor:
        """Collect what all have found for their own boxes, (E, ...)."""
        if self.alone:
            return values
        own = torch.zeros_like(values)
        own[self.mine] = values[self.mine]
        return self.ranks.joined(own)

    def _worked(self, groups: Tensor, rank: int) -> Tensor:
        owner = self.owner[groups]
        return (owner == rank).any(dim=1) if self.split else owner[:, 0] == rank

    @cached_property
    def _reach(self) -> tuple[Tensor, Tensor]:
        first, last = self.owner.clone(), self.owner.clone()
        for groups in self._groups if not self.split else ():
            whose = self.owner[groups[:, :1]].expand_as(groups).flatten()
            first.scatter_reduce_(0, groups.flatten(), whose, "amin")
            last.scatter_reduce_(0, groups.flatten(), whose, "amax")
        return first, last

    @cached_property
    def _needs(self) -> dict[tuple[int, int], Tensor]:
        """List by owner and process the boxes that the latter works on without owning them."""
        found: dict[tuple[int, int], set[int]] = {}
        for groups in self._groups:
            for boxes in groups[(self.owner[groups] != self.owner[groups[:, :1]]).any(dim=1)].tolist():
                whose = [int(self.owner[box]) for box in boxes]
                for rank in set(whose) if self.split else {whose[0]}:
                    for box, owner in zip(boxes, whose, strict=True):
                        if owner != rank:
                            found.setdefault((owner, rank), set()).add(box)
        return {pair: torch.tensor(sorted(boxes)) for pair, boxes in found.items()}

    def _asked(self, owner: int, rank: int) -> Tensor:
        return self._needs.get((owner, rank), torch.zeros(0, dtype=torch.long))


WHOLE = Share(ALONE, torch.zeros(1, 1), split=True)
