"""What every term keeps to: a test class derives from ``TermContract`` and says which term, at which points."""

from __future__ import annotations

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.objective import Objective, PointSet, Term, linearise_any
from cpikan.learning.stop_reason import StopReason

D = torch.float64


def points(count=40, seed=0):
    """Points of the square [-1, 1]^2."""
    return 2 * torch.rand(count, 2, dtype=D, generator=torch.Generator().manual_seed(seed)) - 1


class TermContract:
    def make(self):
        """The term and its points."""
        raise NotImplementedError

    def start(self):
        """The term alone with a weight, beside a condition u = 1."""
        term, at = self.make()
        pinned = Term("pinned", lambda jet, at, _: {"pinned": jet.value[..., 0] - 1.0})
        sets = {term.name: at, "pinned": PointSet(points(7, 5))}
        objective = Objective((term, pinned), sets, {term.name: 0.3, "pinned": 2.0})
        return objective, ScaledCPIKAN([2, 4, 1], 4, start=Start(3))

    def test_shares_add_up_to_the_cost_and_gradients_to_the_gradient(self):
        objective, field = self.start()
        cost, gradient = objective.gradient(field)
        values, gradients = objective.values(field), objective.gradients(field)
        assert float(sum(values.values()).detach()) == pytest.approx(float(cost), rel=1e-12)
        assert torch.allclose(sum(gradients.values()), gradient, rtol=1e-10, atol=1e-12)

    def test_the_gradient_is_the_slope_of_the_cost(self):
        objective, field = self.start()
        start, (_, gradient) = parameter_vector(field), objective.gradient(field)
        direction = torch.randn(len(start), dtype=D, generator=torch.Generator().manual_seed(1))
        ends, step = [], 1e-5
        for sign in (1, -1):
            set_parameters(field, start + sign * step * direction)
            ends.append(float(objective.cost(field).detach()))
        # central differences: third derivatives times step^2, and rounding of the cost over the step
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(float(gradient @ direction), rel=1e-5, abs=1e-7)

    def test_a_point_that_is_there_twice_counts_as_two_or_as_a_mean(self):
        term, at = self.make()
        twice = PointSet._make(None if part is None else torch.cat([part, part]) for part in at)
        _, field = self.start()
        with torch.no_grad():
            once, double = (Objective((term,), {term.name: one}, {term.name: 1.0}).cost(field) for one in (at, twice))
        mean = term.kind == "density" and at.weight is None
        counted = 1.0 if mean else 4.0 if at.tests is not None else 2.0  # integrals are doubled, then squared
        assert float(double) == pytest.approx(counted * float(once), rel=1e-12)

    def test_weights_of_points_multiply_what_is_there(self):
        term, at = self.make()
        _, field = self.start()
        chosen = torch.zeros(at.rows, dtype=D)
        chosen[3] = 1.5
        if at.mix is not None or at.tests is not None:  # of rows, where points are coupled
            with torch.no_grad():
                cost = Objective((term,), {term.name: at._replace(weight=chosen)}, {term.name: 1.0}).cost(field)
                row = torch.cat(term.at(field, at))[3]
            assert float(cost) == pytest.approx(0.5 * float(1.5 * row) ** 2, rel=1e-12)
            return
        alone = PointSet._make(None if part is None else part[3:4] for part in at)._replace(weight=chosen[3:4])
        with torch.no_grad():
            some, one = (
                Objective((term,), {term.name: points}, {term.name: 1.0}).cost(field)
                for points in (at._replace(weight=chosen), alone)
            )
        assert float(some) == pytest.approx(float(one), rel=1e-12)

    def test_residuals_are_linearised_and_densities_are_refused(self):
        objective, field = self.start()
        term = objective.terms[0]
        if term.kind == "density":
            with pytest.raises(InputError, match=f"{term.name} is a density without residuals"):
                objective.linearise(field)
            return
        system = objective.linearise(field)
        assert torch.allclose(system.residuals, objective.residuals(field), atol=1e-12)
        truth = torch.cat(
            [objective.weights[t.name] * linearise_any(field, t, objective.sets[t.name])[1] for t in objective.terms]
        )
        assert float((system.jacobian - truth).abs().max()) <= 1e-12 * float(truth.abs().max())
        assert float(system.cost) == pytest.approx(float(objective.cost(field).detach()), rel=1e-12)
        gradient = objective.gradient(field)[1]
        assert torch.allclose(system.jacobian.mT @ system.residuals, gradient, atol=1e-10 * float(gradient.abs().max()))

    @pytest.mark.parametrize("method", [Adam(40, 1e-2), QuasiNewton("bfgs", 20)])
    def test_methods_that_need_a_gradient_lower_it(self, method):
        objective, field = self.start()
        before = float(objective.cost(field).detach())
        state = method.init(objective, field)
        while method.stop(state) is StopReason.RUNNING:
            state, _ = method.step(objective, field, state)
        assert float(objective.cost(field).detach()) < before
