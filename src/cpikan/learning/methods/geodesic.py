"""GeodesicLevenberg: Levenberg-Marquardt with geodesic acceleration, the output layer solved for anew after every step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cpikan.errors import InputError
from cpikan.learning.damped_systems import DampedSystem, PrimalSystem
from cpikan.learning.methods.damped import Damped
from cpikan.learning.methods.gauss_newton import gauss_newton
from cpikan.learning.methods.last_layer import OutputProblem
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, Place
from cpikan.learning.shared_tape import SharedTape
from cpikan.learning.unknowns import is_linear

_RANK = 1e-8  # damping of the output layer, relative to columns of unit length: coefficients beyond are rounding's
_FLAT = 1e-3


@dataclass(frozen=True)
class GeodesicLevenberg(Damped):
    """Damped steps of all parameters with J'J factored, then the output layer by QR, which no damping holds back.

    What is evaluated at the end of a step serves the output layer and the next linearisation too. Raises InputError for a
    field whose output is not linear unless ``solve_output`` is False.
    """

    solve_output: bool = True
    name: str = "geodesic levenberg-marquardt"

    def init(self, objective: Objective, field: nn.Module) -> State:
        """Solve for the output layer at the start."""
        if self.solve_output and not is_linear(field):
            raise InputError(
                f"output layer of a {type(field).__name__}: give a field whose output is linear, or solve_output=False"
            )
        return super().init(objective, field)

    def system(self, place: Place, field: nn.Module) -> DampedSystem:
        """Linearise by all parameters."""
        found = PrimalSystem(*place.linearise(field))
        place.look(found.jacobian.numel() * found.jacobian.shape[1])
        return found

    def place(self, objective: Objective, field: nn.Module) -> Place:
        """Evaluate the hidden layers once for all that follows."""
        return SharedTape(objective, field) if self.solve_output and SharedTape.takes(objective, field) else objective

    def settle(self, place: Place, field: nn.Module) -> None:
        """Solve for the output layer."""
        if self.solve_output:
            gauss_newton(OutputProblem(place, field, _RANK), 1, 2, _FLAT)
