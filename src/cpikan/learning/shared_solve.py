"""What a solve by several processes can do: series on subdomains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpikan.errors import InputError
from cpikan.learning.combinators import Strategy
from cpikan.learning.strategies.blocks import Blocks
from cpikan.physics.problem import Problem

if TYPE_CHECKING:
    from cpikan.learning.solve_settings import SolveSettings


def check_shared(problem: Problem, own: Strategy | None, settings: SolveSettings) -> None:
    """Raise InputError for a solve that several processes cannot share."""
    count = settings.ranks.size
    if count == 1:
        return
    if settings.cut is None:
        raise InputError(
            f"{count} processes for {problem.name} in one piece: give --subdomains (subdomains=), which they share"
        )
    if (
        settings.cut.levels > 1
    ):  # of what levels say twice rounding decides, and that goes with the order of elimination
        raise InputError(f"{settings.cut.levels} levels of subdomains for {count} processes: give one level")
    if settings.cut.schwarz is not None:
        raise InputError(f"a Schwarz method for {count} processes, which eliminate directly: leave it out")
    boxes = len(settings.cut.partition(problem))
    if count > boxes:
        raise InputError(f"{count} processes for {boxes} subdomains: start at most {boxes}, or give more subdomains")
    if not isinstance(own, Blocks):
        raise InputError(f"recipe default alone is shared by {count} processes: leave out what trains networks")
