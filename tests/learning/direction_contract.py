"""What every direction keeps to: a test class derives from ``DirectionContract`` and says how its direction is made."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.gradient_descent import GradientDescent
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.method import stored
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.objective import make_objective
from cpikan.learning.samplers.points import Points
from cpikan.physics.catalogue import problem
from cpikan.streaming.run_store import RunStore


def plain(value):
    """Numbers, tensors and text, or dictionaries of them."""
    inner = value.values() if isinstance(value, dict) else ()
    return isinstance(value, torch.Tensor | int | float | str | dict) and all(map(plain, inner))


class DirectionContract:
    def make(self):
        """The direction."""
        raise NotImplementedError

    def start(self, name="diffusion"):
        one = problem(name)
        field = ScaledCPIKAN([one.dimension, 4, one.outputs], 4, (one.region.lower, one.region.upper), start=Start(1))
        objective = make_objective(one, Points(60, 40).init(one)[0])
        return KERNEL_TRACES.init(objective, field)[0], field

    def method(self):
        """A method that goes with the direction."""
        return GradientDescent(100, 1e-3, direction=self.make())

    def test_it_is_a_vector_of_plain_data_that_is_the_same_again(self):
        objective, field = self.start()
        before = parameter_vector(field)
        state, other = {}, {}
        for _ in range(4):
            cost, found, state = self.make().follow(objective, field, state)
            again = self.make().follow(objective, field, other)
            other = again[2]
            assert found.shape == before.shape
            assert bool(torch.isfinite(found).all())
            assert torch.equal(found, again[1])
            assert cost == pytest.approx(float(objective.cost(field).detach()), rel=1e-12)
            assert plain(state)
        assert torch.equal(parameter_vector(field), before)

    def test_one_term_gives_its_own_gradient(self):
        objective, field = self.start()
        alone = objective.only("equation")
        _, found, _ = self.make().follow(alone, field, {})
        truth = alone.gradient(field)[1]
        if self.make().momentum:  # as Adam, whose first step is the sign
            truth = truth / (truth.abs() + self.make().eps)
        assert torch.allclose(found, truth, rtol=1e-6, atol=1e-12 * float(truth.abs().max()))

    def test_gradients_that_vanish_do_no_harm(self):
        objective, field = self.start()
        quiet = objective.reweighted(dict.fromkeys(list(objective.weights)[1:], 0.0))
        state = {}
        for _ in range(2 * len(quiet.terms)):
            _, found, state = self.make().follow(quiet, field, state)
            assert bool(torch.isfinite(found).all())
        nothing = objective.reweighted(dict.fromkeys(objective.weights, 0.0))
        assert not bool(self.make().follow(nothing, field, {})[1].any())

    def test_the_cost_falls(self):
        objective, field = self.start()
        before, method = float(objective.cost(field).detach()), self.method()
        state = method.init(objective, field)
        for _ in range(12):
            state, _ = method.step(objective, field, state)
        assert float(objective.cost(field).detach()) < before

    def test_steps_go_on_to_the_bit(self, tmp_path):
        objective, field = self.start()
        method = self.method()
        state = method.init(objective, field)
        for _ in range(4):
            state, _ = method.step(objective, field, state)
        with RunStore(tmp_path, {}, resume=True) as store:
            store.save({"state": stored(state), "field": field.state_dict()})
        with RunStore(tmp_path, {}, resume=True) as store:
            kept = store.saved.state
        _, other = self.start()
        other.load_state_dict(kept["field"])
        again = kept["state"]
        for _ in range(4):
            state, cost = method.step(objective, field, state)
            again, same = method.step(objective, other, again)
            assert same == cost
        assert torch.equal(parameter_vector(other), parameter_vector(field))

    def test_methods_that_solve_for_their_steps_refuse_it(self):
        for method in (Levenberg(), QuasiNewton("lbfgs")):
            with pytest.raises(InputError, match=f"{method.name} takes no direction"):
                method.along(self.make())
        if self.make().momentum:
            with pytest.raises(InputError, match="both remember gradients"):
                Adam(10).along(self.make())
        else:
            assert Adam(10).along(self.make()) == replace(Adam(10), direction=self.make())
