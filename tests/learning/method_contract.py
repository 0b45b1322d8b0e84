"""What every method keeps to: a test class derives from ``MethodContract`` and says how its method is made."""

from __future__ import annotations

import math

import pytest
import torch

from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.methods.method import stored
from cpikan.learning.objective import make_objective
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem
from cpikan.streaming.run_store import RunStore


def minimised(method, objective, field, state, steps):
    """The state after so many steps, or fewer where the method stops, and the costs."""
    costs = []
    for _ in range(steps):
        if method.stop(state) is not StopReason.RUNNING:
            break
        state, cost = method.step(objective, field, state)
        costs.append(cost)
    return state, costs


class MethodContract:
    def make(self):
        """The method, with at least 8 iterations."""
        raise NotImplementedError

    def start(self, name):
        one = problem(name)
        field = ScaledCPIKAN([one.dimension, 4, one.outputs], 5, (one.region.lower, one.region.upper), start=Start(2))
        objective = make_objective(one, Points(80, 24).init(one)[0])
        return KERNEL_TRACES.init(objective, field)[0], field

    @pytest.mark.parametrize("name", ["helmholtz-1d", "burgers"])
    def test_the_cost_falls_and_is_that_of_the_objective(self, name):
        objective, field = self.start(name)
        method = self.make()
        before = float(objective.cost(field).detach())
        state = method.init(objective, field)
        assert method.stop(state) is StopReason.RUNNING
        state, costs = minimised(method, objective, field, state, 8)
        assert costs
        assert all(math.isfinite(cost) for cost in costs)
        assert float(objective.cost(field).detach()) < before
        assert isinstance(method.stop(state), StopReason)

    @pytest.mark.parametrize("name", ["helmholtz-1d", "burgers"])
    def test_the_state_is_plain_data_that_is_gone_on_with_to_the_bit(self, name, tmp_path):
        objective, field = self.start(name)
        method = self.make()
        state, _ = minimised(method, objective, field, method.init(objective, field), 3)
        with RunStore(tmp_path, {}, resume=True) as store:
            store.save({"state": stored(state), "field": field.state_dict()})
        with RunStore(tmp_path, {}, resume=True) as store:
            kept = store.saved.state
        state, costs = minimised(method, objective, field, state, 5)
        _, other = self.start(name)
        other.load_state_dict(kept["field"])
        again, same = minimised(method, objective, other, kept["state"], 5)
        assert same == costs
        assert torch.equal(parameter_vector(other), parameter_vector(field))
        assert method.stop(again) is method.stop(state)

    def test_it_stops_for_a_reason_and_then_stays(self):
        run = Runner(problem("helmholtz-1d"))
        run.place(ScaledCPIKAN([1, 4, 1], 5, start=Start(2)), Points(80, 2))
        reason = run.run(self.make())
        assert reason not in (StopReason.RUNNING, StopReason.TIME)
        assert run.history.ends[-1].stage == self.make().name
        assert run.history.records[-1]["iteration"] == run.iterations
        assert run.iterate.heldout_cost() == run.iterate.best_cost

    def test_other_weights_on_the_way_are_minded(self):
        """What a state had cached is dropped when the objective changes: costs are then those of the new one."""
        objective, field = self.start("burgers")
        method = self.make()
        state, _ = minimised(method, objective, field, method.init(objective, field), 2)
        heavy = objective.reweighted({name: 3 * weight for name, weight in objective.weights.items()})
        before = float(heavy.cost(field).detach())
        _, costs = minimised(method, heavy, field, stored(state), 4)
        assert float(heavy.cost(field).detach()) <= before
        assert max(costs) <= before * (1 + 1e-12)
