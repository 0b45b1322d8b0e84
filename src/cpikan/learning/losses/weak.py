"""Weak: the equation is tested by bubbles on elements, after integration by parts (hp-VPINN)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cpikan.errors import InputError
from cpikan.learning.losses.loss_mode import LossMode
from cpikan.learning.samplers.sampler import check_whole
from cpikan.physics.problem import Problem
from cpikan.physics.quadrature import rule
from cpikan.physics.weak import Mesh, check_box, counts_for, weak_form


@dataclass(frozen=True)
class Weak(LossMode):
    """Make residuals of ``functions`` bubbles per axis on each of ``elements`` boxes per axis (None: as many as there are
    points to be), integrated by parts ``by_parts`` times, 0, 1 or 2.

    Elements ``overlap`` by a share of their length, so that no line is the end of all; ``nodes`` per axis (None: four more
    than functions) of a ``quadrature`` take the integrals. Fields are judged by other elements and one more function.
    """

    functions: int = 6
    elements: tuple[int, ...] | None = None
    by_parts: int = 1
    overlap: float = 0.5
    nodes: int | None = None
    quadrature: str = "gauss-legendre"
    name: ClassVar[str] = "weak"
    trains: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    recipe: ClassVar[str] = "trained"

    def __post_init__(self) -> None:
        check_whole("Weak", functions=self.functions)
        check_whole("Weak", by_parts=self.by_parts, nodes=self._nodes)
        if self.functions < 1:
            raise InputError(f"{self.functions} test functions per axis: give at least 1")
        rule(self.quadrature, self._nodes)

    @property
    def _nodes(self) -> int:
        return self.functions + 4 if self.nodes is None else self.nodes

    def pose(self, problem: Problem) -> Problem:
        """Put the weak form in the equation's place; raises InputError where there is none."""
        check_box(problem, "weak form")
        if self.elements is not None and len(self.elements) != problem.dimension:
            raise InputError(
                f"elements {self.elements} for {problem.name} with {problem.dimension} axes: give one number for each"
            )

        def mesh(rows: int, held_out: bool) -> Mesh:
            counts = self.elements or counts_for(problem, 2 * rows if held_out else rows, self.functions)
            more = int(held_out)
            counts = tuple(count + more for count in counts)
            return Mesh(counts, self.functions + more, self._nodes + more, self.overlap, self.quadrature)

        return replace(problem, form=weak_form(problem, mesh, self.by_parts), energy=None)
