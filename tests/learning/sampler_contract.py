"""What every sampler keeps to: a test class derives from ``SamplerContract`` and says how its sampler is made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import Runner
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem
from cpikan.streaming.events import Cancelled
from heard_events import Heard

PROBLEMS = ("helmholtz-1d", "poisson-disc", "allen-cahn")  # an axis, no box, a period


def resumed_and_whole(folder, name, recipe, **settings):
    """The same solve, stopped twice and resumed each time, and at one go."""
    one = problem(name)
    kept = {"seconds": 1e4, "checkpoint_s": 0.0, **settings}

    def run(**more):
        box = (one.region.lower, one.region.upper)
        field = ScaledCPIKAN([one.dimension, 4, one.outputs], 4, box, start=Start(1))
        return solve(one, field, recipe, settings=SolveSettings(**kept, **more))

    for call in (2, 2):
        with pytest.raises(Cancelled):
            run(events=Heard(call), checkpoint=folder, resume=True)
    return run(checkpoint=folder, resume=True), run()


def alike(one, other):
    """Two states of plain data."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


class SamplerContract:
    def make(self):
        """The sampler; changes points, if at all, within 10 steps."""
        raise NotImplementedError

    @pytest.mark.parametrize("name", PROBLEMS)
    def test_every_term_gets_points_of_the_region(self, name):
        one = problem(name)
        sets, _ = self.make().init(one)
        assert list(sets) == ["equation", *one.condition_names]
        for at in sets.values():
            assert at.points.dtype == torch.float64
            assert at.points.ndim == 2
            assert one.region.contains((1 - 1e-12) * at.points.numpy()).all()
            assert all(part is None or len(part) == len(at.points) for part in at)

    def test_points_are_the_same_for_the_same_sampler_and_others_are_held_out(self):
        one = problem("poisson-2d")
        sets, again = self.make().init(one)[0], self.make().init(one)[0]
        held = self.make().held_out_sampler().init(one)[0]
        assert all(torch.equal(sets[name].points, again[name].points) for name in sets)
        assert held.keys() == sets.keys()
        fitted = {tuple(point) for point in sets["equation"].points.tolist()}
        assert not fitted & {tuple(point) for point in held["equation"].points.tolist()}

    def test_an_update_keeps_terms_and_gives_plain_data(self):
        one, sampler = problem("poisson-2d"), self.make()
        run = Runner(one)
        run.place(ScaledCPIKAN([2, 4, 1], 4, ([0, 0], [1, 1])), sampler)
        before = run.iterate.objective
        _, state = sampler.init(one)
        objective, state = sampler.update(one, before, run.iterate.field, state)
        assert objective.terms == before.terms
        assert objective.sets.keys() == before.sets.keys()
        assert np.isfinite(float(objective.cost(run.iterate.field).detach()))
        assert (objective is before) == (sampler.every == 0)
        assert all(isinstance(value, torch.Tensor | int | float | str | dict) for value in state.values())

    def test_a_solve_goes_on_with_the_points_it_had(self, tmp_path):
        recipe = Recipe("mine", "", (Adam(25, 1e-2), QuasiNewton("bfgs", 20)))
        resumed, whole = resumed_and_whole(tmp_path, "helmholtz-1d", recipe, points=self.make())
        assert torch.equal(parameter_vector(resumed.field), parameter_vector(whole.field))
        assert resumed.metrics["iterations"] == whole.metrics["iterations"] >= 45
