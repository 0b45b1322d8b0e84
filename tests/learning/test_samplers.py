"""Samplers: every rule of points, and one that adapts, written here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sampler_contract import SamplerContract, resumed_and_whole

from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.adam import Adam
from cpikan.learning.objective import PointSet
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.adaptive_residual import AdaptiveResidualSampler
from cpikan.learning.samplers.causal_slab import CausalSlabSampler
from cpikan.learning.samplers.multi_resolution import MultiResolution
from cpikan.learning.samplers.points import RULES, Points, interior_points
from cpikan.learning.samplers.rules import R3, Quantile, Rad, RarD, RarG
from cpikan.learning.samplers.volume_weighted import VolumeWeightedSampler
from cpikan.physics.catalogue import problem


@dataclass(frozen=True)
class WhereResidualsAreLarge(Points):
    """Every 7 steps half the points are drawn anew with the squared residual as density (RAD; Wu et al. 2023)."""

    every: int = 7

    def init(self, problem):
        return super().init(problem)[0], {"round": 0}

    def update(self, problem, objective, field, state):
        rounds = state["round"] + 1
        candidates = Points(10 * self.interior, 0, "random", self.seed + 31 * rounds)
        more = PointSet(torch.from_numpy(interior_points(problem, candidates)))
        with torch.no_grad():
            size = torch.cat(objective.only("equation").terms[0].at(field, more)).square().numpy()
        random, half = np.random.default_rng([self.seed, rounds]), self.interior // 2
        drawn = random.choice(len(size), half, replace=False, p=size / size.sum())
        old = objective.sets["equation"].points
        points = torch.cat([old[: len(old) - half], more.points[torch.from_numpy(drawn)]])
        return objective.replace_points("equation", PointSet(points)), {"round": rounds}


@pytest.mark.parametrize("rule", RULES)
class TestRules(SamplerContract):
    @pytest.fixture(autouse=True)
    def _rule(self, rule):
        self.rule = rule

    def make(self):
        return Points(60, 12, self.rule, seed=3)


class TestAdaptive(SamplerContract):
    def make(self):
        return WhereResidualsAreLarge(60, 12, seed=3)


RULES_OF_REFINEMENT = [Rad(), RarG(5), RarD(), R3(), Quantile()]


@pytest.mark.parametrize("rule", RULES_OF_REFINEMENT, ids=repr)
class TestRefinement(SamplerContract):
    @pytest.fixture(autouse=True)
    def _rule(self, rule):
        self.rule = rule

    def make(self):
        return AdaptiveResidualSampler(Points(60, 12, seed=3), self.rule, 7, 600)


class TestUnbiased(SamplerContract):
    def make(self):
        return AdaptiveResidualSampler(Points(60, 12, seed=3), "rad", 7, 600, unbiased=True)


class TestVolumes(SamplerContract):
    def make(self):
        return VolumeWeightedSampler(Points(60, 12, seed=3))


class TestVolumesOfPointsThatMove(SamplerContract):
    def make(self):
        return VolumeWeightedSampler(AdaptiveResidualSampler(Points(60, 12, seed=3), R3(), 7, 600))


class TestCausalSlabs(SamplerContract):
    problems, plane, solved = ("diffusion", "allen-cahn"), "burgers", "diffusion"

    def make(self):
        return CausalSlabSampler(Points(60, 12, seed=3), 7, 4, pool=600)


class TestCausalSlabsThatMarch(TestCausalSlabs):
    def make(self):
        return CausalSlabSampler(Points(60, 12, seed=3), 7, 4, (1e-3,), 600, spans=(0.5, 1.0))


class TestMultiResolution(SamplerContract):
    def make(self):
        return MultiResolution(Points(60, 12, seed=3), (20, 40, 60), (8, 16))


class TestMultiResolutionOfPointsThatMove(SamplerContract):
    def make(self):
        return MultiResolution(AdaptiveResidualSampler(Points(60, 12), "r3", 6, 600), (20, 60), (12,))


def test_points_that_move_and_weights_of_points_go_on_together(tmp_path):
    recipe = Recipe("mine", "", (Adam(31, 1e-2),))
    parts = {"points": AdaptiveResidualSampler(Points(60, 12), "r3", 7, 600), "balancer": "residual-attention"}
    resumed, whole = resumed_and_whole(tmp_path, "helmholtz-1d", recipe, calls=(1, 2), **parts)
    assert torch.equal(parameter_vector(resumed.field), parameter_vector(whole.field))


def test_points_gather_where_residuals_are_large():
    """Half the points are drawn in proportion to the squares: their sum rises, and nothing else changes."""
    run = Runner(problem("burgers"))
    sampler = WhereResidualsAreLarge(200, 40)
    run.place(ScaledCPIKAN([2, 4, 1], 4, ([-1, 0], [1, 1]), start=Start(1)), sampler)
    before = run.iterate.objective
    run.run(Adam(7, 1e-3))
    after = run.iterate.objective
    sizes = [float(one.only("equation").cost(run.iterate.field).detach()) for one in (before, after)]
    assert sizes[1] > sizes[0]
    assert len(after.sets["equation"].points) == len(before.sets["equation"].points)
    assert after.weights == before.weights
