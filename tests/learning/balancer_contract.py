"""What every balancer keeps to: a test class derives from ``BalancerContract`` and says how its balancer is made."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sampler_contract import resumed_and_whole

from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.objective import make_objective
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.physics.catalogue import problem


class BalancerContract:
    stages = (Adam(11, 1e-2), Levenberg(4))  # methods that it goes with

    def make(self):
        """The balancer; changes weights, if at all, within 10 steps."""
        raise NotImplementedError

    def start(self, name="diffusion"):
        one = problem(name)
        field = ScaledCPIKAN([2, 4, 1], 4, (one.region.lower, one.region.upper), start=Start(1))
        return one, field, make_objective(one, Points(80, 40).init(one)[0])

    def test_weights_are_positive_and_nothing_else_changes(self):
        _, field, objective = self.start()
        before = parameter_vector(field)
        found, state = self.make().init(objective, field)
        again, state = self.make().update(found, field, state)
        for one in (found, again):
            assert one.terms == objective.terms
            for name, at in one.sets.items():
                assert at._replace(weight=None) == objective.sets[name]
                assert at.weight is None or (at.weight.shape == at.points.shape[:1] and bool((at.weight > 0).all()))
            assert one.weights.keys() == objective.weights.keys()
            assert all(math.isfinite(w) and w > 0 for w in one.weights.values())
        assert torch.equal(parameter_vector(field), before)
        assert all(isinstance(value, torch.Tensor | int | float | str | dict) for value in state.values())

    def test_the_users_weight_multiplies(self):
        one, field, objective = self.start()
        heavy = replace(one, conditions=[replace(one.conditions[0], weight=7.0), *one.conditions[1:]])
        name = one.condition_names[0]
        found = self.make().init(objective, field)[0].weights
        more = self.make().init(make_objective(heavy, objective.sets), field)[0].weights
        assert more[name] == pytest.approx(7.0 * found[name], rel=1e-12)
        assert all(more[other] == pytest.approx(found[other]) for other in found if other != name)

    def test_held_out_weights_follow(self):
        one, field, _ = self.start()
        run = Runner(one)
        run.place(field, Points(80, 40), self.make())
        run.run(Adam(10, 1e-3))
        fitted, held = run.iterate.objective, run.iterate.heldout
        assert held.per_point() == pytest.approx(fitted.per_point(), rel=1e-12)
        assert all(at.weight is None for at in held.sets.values())  # one yardstick, whatever points are fitted harder
        assert run.iterate.best_cost == pytest.approx(run.iterate.heldout_cost(), rel=1e-12)

    def test_what_a_sampler_put_on_points_is_multiplied_and_left(self):
        _, field, objective = self.start()
        own = {
            name: torch.linspace(0.5, 2.0, len(at.points), dtype=torch.float64) for name, at in objective.sets.items()
        }
        sets = {name: at._replace(weight=own[name]) for name, at in objective.sets.items()}
        found, state = self.make().init(replace(objective, sets=sets), field)
        plain, _ = self.make().init(objective, field)
        for name, weight in own.items():  # the first weights of points do not depend on those of a sampler
            before = plain.sets[name].weight
            assert torch.equal(found.sets[name].weight, weight if before is None else weight * before)
        again, state = self.make().update(found, field, state)
        bare = self.make().lifted(again, state)
        assert all(bare.sets[name].weight is weight for name, weight in own.items())
        assert bare.weights == again.weights
        over, state = self.make().moved(again, bare, state)
        assert all(torch.equal(over.sets[name].weight, again.sets[name].weight) for name in own)

    def test_points_that_move_have_weights_too(self):
        one, field, objective = self.start()
        found, state = self.make().init(objective, field)
        found, state = self.make().update(found, field, state)
        other = Points(70, 40, "random", 5).init(one)[0]["equation"]
        bare = self.make().lifted(found, state)
        fresh, state = self.make().moved(found, bare.replace_points("equation", other), state)
        at = fresh.sets["equation"]
        assert torch.equal(at.points, other.points)
        assert at.weight is None or (len(at.weight) == 70 and bool((at.weight > 0).all()))
        for name in one.condition_names:
            same = found.sets[name].weight
            assert same is fresh.sets[name].weight or torch.equal(same, fresh.sets[name].weight)
        assert fresh.per_point() == pytest.approx(found.per_point(), rel=1e-12)
        again, _ = self.make().update(fresh, field, state)
        assert math.isfinite(float(again.cost(field).detach()))

    def test_a_solve_goes_on_with_the_weights_it_had(self, tmp_path):
        recipe = Recipe("mine", "", self.stages, balancer=self.make())
        resumed, whole = resumed_and_whole(tmp_path, "diffusion", recipe, points=Points(30, 20))
        assert torch.equal(parameter_vector(resumed.field), parameter_vector(whole.field))
        assert resumed.history.records[-1]["cost"] == whole.history.records[-1]["cost"]
