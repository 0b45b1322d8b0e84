"""Balancers: each keeps to the contract, and one by gradients, written here."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from balancer_contract import BalancerContract

from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.annealing import LearningRateAnnealing
from cpikan.learning.balancers.boundary_first import BoundaryFirst
from cpikan.learning.balancers.causal_weights import CausalWeights
from cpikan.learning.balancers.grad_norm import GradNorm
from cpikan.learning.balancers.kernel_traces import KernelTraces
from cpikan.learning.balancers.mean_squares import MeanSquares
from cpikan.learning.balancers.relobralo import ReLoBRaLo
from cpikan.learning.balancers.residual_attention import ResidualAttention
from cpikan.learning.balancers.self_adaptive import SelfAdaptive
from cpikan.learning.balancers.soft_adapt import SoftAdapt
from cpikan.learning.methods.adam import Adam
from cpikan.learning.objective import make_objective
from cpikan.learning.samplers.points import Points
from cpikan.physics.catalogue import problem


@dataclass(frozen=True)
class EqualGradients(MeanSquares):
    """Weights that follow the inverse lengths of the terms' gradients (Wang, Teng and Perdikaris 2021)."""

    every: int = 5
    memory: float = 0.7

    def update(self, objective, field, state):
        plain, _ = MeanSquares().init(objective, field)
        sizes = {name: float(gradient.norm()) for name, gradient in plain.gradients(field).items()}
        largest = max(sizes.values())
        user = {term.name: term.user_weight for term in objective.terms}
        found = {}
        for name, size in sizes.items():  # a gradient grows with the square of a weight
            now = (largest / max(size / user[name] ** 2, 1e-30)) ** 0.5
            found[name] = self.memory * state.get(name, now) + (1 - self.memory) * now
        return plain.reweighted({name: plain.weights[name] * share for name, share in found.items()}), found


class TestMeanSquares(BalancerContract):
    def make(self):
        return MeanSquares()


class TestKernelTraces(BalancerContract):
    def make(self):
        return KernelTraces()


class TestKernelTracesAgain(BalancerContract):
    def make(self):
        return KernelTraces(every=4)


class TestEqualGradients(BalancerContract):
    def make(self):
        return EqualGradients()

    test_the_users_weight_multiplies = None  # the largest gradient may be that of the term whose weight is changed


class TestAnnealing(BalancerContract):
    def make(self):
        return LearningRateAnnealing(every=4)


class TestGradNorm(BalancerContract):
    def make(self):
        return GradNorm(every=4)


class TestReLoBRaLo(BalancerContract):
    def make(self):
        return ReLoBRaLo(every=4)


class TestBoundaryFirst(BalancerContract):
    def make(self):
        return BoundaryFirst(steps=20, every=5)


class TestSoftAdapt(BalancerContract):
    def make(self):
        return SoftAdapt(every=4)


class TestSelfAdaptive(BalancerContract):
    stages = (Adam(11, 1e-2), Adam(4, 1e-3))

    def make(self):
        return SelfAdaptive(every=4)


@pytest.mark.parametrize("potential", ["plain", "exponential"])
class TestResidualAttention(BalancerContract):
    @pytest.fixture(autouse=True)
    def _potential(self, potential):
        self.potential = potential

    def make(self):
        return ResidualAttention(every=4, potential=self.potential)


class TestCausalWeights(BalancerContract):
    def make(self):
        return CausalWeights(every=4, axis=1)


def test_traces_are_those_of_the_kernel():
    """The trace of J J' over the rows of a term, by the output's coefficients, is the same for all terms."""
    one = problem("diffusion")
    field = ScaledCPIKAN([2, 4, 1], 4, (one.region.lower, one.region.upper), start=Start(1))
    objective, _ = KernelTraces().init(make_objective(one, Points(80, 40).init(one)[0]), field)
    for term in objective.terms:
        jacobian = objective.only(term.name).linearise(field, "output").jacobian
        assert float(torch.trace(jacobian @ jacobian.mT)) == pytest.approx(1.0, rel=1e-12)
