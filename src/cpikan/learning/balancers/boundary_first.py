"""BoundaryFirst: weights that move from the conditions to the equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cpikan.errors import InputError
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.balancers.mean_squares import MeanSquares
from cpikan.learning.balancers.term_balancer import Shares, TermBalancer
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective
from cpikan.learning.samplers.sampler import check_whole


@dataclass(frozen=True)
class BoundaryFirst(TermBalancer):
    """Give conditions the share ``begin`` of the weight at first and ``end`` after ``steps`` steps, the equation the rest.

    In between it falls evenly, by the steps that were taken. Shares stand on the weights of `KernelTraces` at the start, and
    are twice those shares: with ``end`` = 1/2 the weights end as those. Raises InputError for shares that are not between 0
    and 1, and for an objective without conditions, whose weights have nowhere to move from.
    """

    begin: float = 0.99
    end: float = 0.5
    steps: int = 1000
    start: ClassVar[MeanSquares] = KERNEL_TRACES
    of_densities: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (0 < self.begin < 1 and 0 < self.end < 1):
            raise InputError(f"shares {self.begin} to {self.end} of conditions: give two between 0 and 1")
        check_whole("BoundaryFirst", steps=self.steps, every=self.every)
        if self.steps < 1 or self.every < 1:
            raise InputError(f"weights that move in {self.steps} steps, every {self.every}: give 1 or more of both")

    def shares(self, plain: Objective, field: nn.Module, state: State) -> tuple[Shares, State]:
        """Look up the shares at the step that is reached."""
        if all(term.inside for term in plain.terms):
            raise InputError(
                "weights that move from conditions to the equation, where no condition is a residual: give constraints "
                "penalty, or another balancer"
            )
        looks = state.get("looks", -1) + 1
        gone = min(1.0, looks * self.every / self.steps)
        share = self.begin + gone * (self.end - self.begin)
        return {term.name: 2 * (1 - share if term.inside else share) for term in plain.terms}, {"looks": looks}
