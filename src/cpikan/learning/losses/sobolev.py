"""Sobolev: residuals and their derivatives along the axes, squared together (Sobolev training, gradient-enhanced)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cpikan.errors import NUMBER, InputError, check_type
from cpikan.learning.losses.loss_mode import LossMode
from cpikan.physics.form import Form
from cpikan.physics.problem import Problem


@dataclass(frozen=True)
class Sobolev(LossMode):
    """Add the slopes of the residuals, by half the box's length along each axis and times ``weight``, to the residuals.

    They are exact: derivatives of the jets in forward mode. Judged is the equation alone. Sources: Son, Jang, Han and
    Hwang, arXiv 2101.08932; Yu, Lu, Meng and Karniadakis, CMAME 393, 114823 (2022).
    """

    weight: float = 0.1
    name: ClassVar[str] = "sobolev"
    trains: ClassVar[bool] = True
    recipe: ClassVar[str] = "trained"

    def __post_init__(self) -> None:
        check_type("weight of slopes", self.weight, NUMBER, "a number above 0, as 0.1")
        if not self.weight > 0:
            raise InputError(f"weight {self.weight} of slopes: give more than 0, as 0.1, or use --loss-mode strong")

    def pose(self, problem: Problem) -> Problem:
        """Put the residuals with their slopes in the equation's place."""
        ends = zip(problem.region.lower, problem.region.upper, strict=True)
        slopes = tuple(self.weight * (high - low) / 2 for low, high in ends)
        return replace(problem, form=Form(problem.interior, problem.second, slopes=slopes), energy=None)
