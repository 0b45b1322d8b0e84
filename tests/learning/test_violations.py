"""Violations of conditions: one figure each, in the condition's units and relative to its data; few measured points."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cpikan.fields.protocol import Jet
from cpikan.learning.objective import make_objective
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.violations import violations, zero_cost
from cpikan.physics.problem import Condition, Problem, dirichlet, measured, neumann
from cpikan.physics.regions import box

LONG = SolveSettings(seconds=1e4)


class Lines(nn.Module):
    """u_o = values[o] + slopes[o] x on one axis."""

    outputs = 2

    def __init__(self, values, slopes):
        super().__init__()
        self.lines = torch.tensor([values, slopes], dtype=torch.float64)

    def jet(self, x, second="axes"):
        value = self.lines[0] + self.lines[1] * x
        slope = self.lines[1].expand(len(x), -1)[..., None]
        return Jet(value, slope, torch.zeros_like(slope))


def _found(conditions, field):
    posed = Problem("lines", box([0], [2]), lambda u, x: u.value[..., 0] - 3, conditions, outputs=2)
    objective = make_objective(posed, Points(40, 8).init(posed)[0])
    return {one.name: (one.largest, one.relative) for one in violations(field, objective)}, objective


def test_each_condition_has_its_own_units():
    """Equal names, data of 1e6 and of 1e-3: the small one is missed by half, the large one by a millionth."""
    conditions = [
        dirichlet(1e6, ["x=min"]),
        dirichlet(2e-3, ["x=max"], output=1),
        neumann(0.0, ["x=max"], output=0),
    ]
    found, _ = _found(conditions, Lines([1e6 + 1, 1e-3], [-4.0, 0.0]))
    assert found["dirichlet"] == pytest.approx((1.0, 1.0 / (1e6 + 1)))  # relative to the larger of data and solution
    assert found["dirichlet 2"] == pytest.approx((1e-3, 0.5))
    assert found["neumann"] == pytest.approx((4.0, 1.0))  # no slope was asked for, and all of it is there


def test_zero_leaves_all_of_the_data():
    found, objective = _found([dirichlet(5.0, ["x=min"])], Lines([0.0, 0.0], [0.0, 0.0]))
    assert found["dirichlet"] == (5.0, 1.0)
    assert zero_cost(Lines([9.0, 9.0], [1.0, 1.0]), objective) == pytest.approx(0.5 * (40 * 9 + 25))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_measured_points_are_enough(count):
    """u'' + u = 0 with cos(x + 0.3): as many values as there are, and slopes at points inside for the rest."""
    at = torch.linspace(-0.7, 1.1, count, dtype=torch.float64)[:, None]
    slope = Condition(
        "slope", lambda jet, side: jet.gradient[..., 0, 0] + torch.sin(side.points[..., 0] + 0.3), at=at[:1] + 0.25
    )
    posed = Problem(
        "few",
        box([-2], [3]),
        lambda u, x: u.second[..., 0, 0] + u.value[..., 0],
        [measured(at, torch.cos(at[:, 0] + 0.3)), slope],
        exact=lambda x: torch.cos(x[..., 0] + 0.3),
    )
    found = solve(posed, settings=LONG).metrics
    assert found["relative_l2"] < 1e-9
    assert [one["name"] for one in found["conditions"]] == ["measured", "slope"]
    assert found["heldout_relative"] < 1e-8
    assert found["boundary_violation"] == max(one["violation"] for one in found["conditions"])
