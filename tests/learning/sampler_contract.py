"""What every sampler keeps to: a test class derives from ``SamplerContract`` and says how its sampler is made."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning import solver
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import Runner
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.trust.verdict import Trust
from cpikan.physics.catalogue import problem
from cpikan.streaming.events import Cancelled
from heard_events import Heard


@contextmanager
def unjudged():
    """Solve without the verdict, which takes as long as a few dozen steps and which nobody here looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solver, "assess", lambda *given: (Trust("undetermined", "not looked at"), None))
        yield


def resumed_and_whole(folder, name, recipe, *, calls=(2, 2), **settings):
    """The same solve, stopped at those calls and resumed each time, and at one go."""
    one = problem(name)
    kept = {"seconds": 1e4, "checkpoint_s": 0.0, **settings}

    def run(**more):
        box = (one.region.lower, one.region.upper)
        field = ScaledCPIKAN([one.dimension, 4, one.outputs], 4, box, start=Start(1))
        return solve(one, field, recipe, settings=SolveSettings(**kept, **more))

    with unjudged():
        for call in calls:
            with pytest.raises(Cancelled):
                run(events=Heard(call), checkpoint=folder, resume=True)
        return run(checkpoint=folder, resume=True), run()


def alike(one, other):
    """Two states of plain data."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def placed(one, sampler):
    """A run with a small network at the first points of a sampler."""
    box = (one.region.lower, one.region.upper)
    run = Runner(one)
    run.place(ScaledCPIKAN([one.dimension, 4, one.outputs], 4, box, start=Start(1)), sampler)
    return run


def rows_of(points):
    return {tuple(point) for point in points.tolist()}


class SamplerContract:
    """``problems`` have one axis, no box, a period; ``plane`` has two axes, and ``solved`` is solved for 31 steps."""

    problems = ("helmholtz-1d", "poisson-disc", "allen-cahn")
    plane, solved = "poisson-2d", "helmholtz-1d"

    def make(self):
        """The sampler; changes points, if at all, within 10 steps."""
        raise NotImplementedError

    def test_every_term_gets_points_of_the_region_at_the_start_and_later(self):
        for one in map(problem, self.problems):
            sampler = self.make()
            sets, state = sampler.init(one)
            assert list(sets) == ["equation", *one.condition_names]
            run = placed(one, sampler)
            objective, state = sampler.update(one, run.iterate.objective, run.iterate.field, state)
            for at in (*sets.values(), *objective.sets.values()):
                assert at.points.dtype == torch.float64
                assert at.points.ndim == 2
                assert one.region.contains((1 - 1e-12) * at.points.numpy()).all()
                assert all(part is None or len(part) == len(at.points) for part in at)
            held = rows_of(sampler.held_out_sampler().init(one)[0]["equation"].points)
            assert not held & rows_of(objective.sets["equation"].points)
            drawn = sampler.update(one, run.iterate.objective, run.iterate.field, sampler.init(one)[1])[0]
            assert torch.equal(drawn.sets["equation"].points, objective.sets["equation"].points)

    def test_points_are_the_same_for_the_same_sampler_and_others_are_held_out(self):
        one = problem(self.plane)
        sets, again = self.make().init(one)[0], self.make().init(one)[0]
        held = self.make().held_out_sampler().init(one)[0]
        assert all(torch.equal(sets[name].points, again[name].points) for name in sets)
        assert held.keys() == sets.keys()
        assert not rows_of(sets["equation"].points) & rows_of(held["equation"].points)

    def test_an_update_keeps_terms_and_gives_plain_data(self):
        one, sampler = problem(self.plane), self.make()
        run = placed(one, sampler)
        before = run.iterate.objective
        _, state = sampler.init(one)
        objective, state = sampler.update(one, before, run.iterate.field, state)
        assert objective.terms == before.terms
        assert objective.sets.keys() == before.sets.keys()
        assert np.isfinite(float(objective.cost(run.iterate.field).detach()))
        assert (objective is before) == (sampler.every == 0)
        assert all(isinstance(value, torch.Tensor | int | float | str | dict) for value in state.values())

    def test_a_solve_goes_on_with_the_points_it_had(self, tmp_path):
        recipe = Recipe("mine", "", (Adam(17, 1e-2), QuasiNewton("bfgs", 14)))
        # stopped after 10 steps, and in the second stage
        resumed, whole = resumed_and_whole(tmp_path, self.solved, recipe, calls=(1, 2), points=self.make())
        assert torch.equal(parameter_vector(resumed.field), parameter_vector(whole.field))
        assert resumed.metrics["iterations"] == whole.metrics["iterations"] >= 31
