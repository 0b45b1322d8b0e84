"""Methods: all of the package, and one written here."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from method_contract import MethodContract

from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.damped_systems import Limits
from cpikan.learning.directions.conflict_free import ConFIG, MomentumConFIG
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.gradient_descent import GradientDescent
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.method import Method
from cpikan.learning.methods.muon import Muon
from cpikan.learning.methods.natural_gradient import GaussNewtonCG, NaturalGradient
from cpikan.learning.methods.quasi_newton import UPDATES, QuasiNewton
from cpikan.learning.methods.schwarz_quasi_newton import SchwarzQuasiNewton
from cpikan.learning.methods.soap import Soap
from cpikan.learning.methods.spring import Spring
from cpikan.learning.methods.variable_projection import VariableProjection
from cpikan.learning.stop_reason import StopReason


@dataclass(frozen=True)
class SteepestDescent(Method):
    """Steps along the gradient, halved until the cost falls."""

    iterations: int = 12
    name: str = "steepest descent"

    def init(self, objective, field):
        return {"taken": 0, "length": 1e-2, "reason": 0}

    def step(self, objective, field, state):
        start, (cost, gradient) = parameter_vector(field), objective.gradient(field)
        length = 2 * state["length"]
        for _ in range(30):
            set_parameters(field, start - length * gradient)
            with torch.no_grad():
                if objective.cost(field) < cost:
                    return {"taken": state["taken"] + 1, "length": length, "reason": 0}, float(cost)
            length /= 2
        set_parameters(field, start)
        return {**state, "reason": int(StopReason.LINE_SEARCH)}, float(cost)

    def stop(self, state):
        if state["taken"] >= self.iterations:
            return StopReason.BUDGET
        return StopReason(state["reason"])


MADE_BY = {
    "adam": lambda: Adam(12, 1e-3),
    "adam along ConFIG": lambda: Adam(12, 1e-3, direction=ConFIG()),
    "gradient-descent": lambda: GradientDescent(12, 1e-4),
    "gradient-descent along M-ConFIG": lambda: GradientDescent(12, 1e-3, direction=MomentumConFIG()),
    "muon": lambda: Muon(12, 1e-3),
    "soap": lambda: Soap(12, 1e-3, frequency=2),
    **{update: (lambda update=update: QuasiNewton(update, 12)) for update in UPDATES},
    "aspqn": lambda: SchwarzQuasiNewton("additive", 8, local=1),
    "mspqn": lambda: SchwarzQuasiNewton("multiplicative", 8, local=1),
    "levenberg": lambda: Levenberg(12),
    "natural-gradient": lambda: NaturalGradient(12),
    "natural-gradient by products": lambda: NaturalGradient(9, limits=Limits(0, rank=4, tolerance=0.3, products=10)),
    "gauss-newton-cg": lambda: GaussNewtonCG(9, products=8),
    "spring": lambda: Spring(12),
    "varpro": lambda: VariableProjection(12),
    "last-layer": lambda: LastLayer(),
    "steepest-descent": lambda: SteepestDescent(),
}


@pytest.mark.parametrize("kind", MADE_BY)
class TestMethods(MethodContract):
    @pytest.fixture(autouse=True)
    def _kind(self, kind):
        self.kind = kind

    def make(self):
        return MADE_BY[self.kind]()
