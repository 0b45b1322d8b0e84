"""Conditions on the boundary: what their residuals vanish for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Condition, Problem, Side, dirichlet, initial_rate, periodic
from cpikan.physics.regions import box


def test_initial_rate_is_the_derivative_to_later_times():
    """u = x^2 + (3 + x) t has the rate 3 + x; another output's rate is not looked at."""
    region = box([-1, 0], [1, 2], ["x", "t"])
    points, normals = region.on("t=min", np.linspace(0, 1, 7)[:, None], False)
    x, t = torch.from_numpy(points).unbind(-1)
    value = torch.stack([-x, x**2 + (3 + x) * t], dim=-1)
    slopes = torch.stack([-torch.ones_like(x), 2 * x + t], dim=-1), torch.stack([torch.zeros_like(x), 3 + x], dim=-1)
    jet, side = (
        Jet(value, torch.stack(slopes, dim=-1), torch.empty(7, 2, 0)),
        Side(torch.from_numpy(points), torch.from_numpy(normals)),
    )
    condition = initial_rate(lambda points: 3 + points[..., 0], output=1)
    assert condition.on == ("t=min",)
    torch.testing.assert_close(condition.residual(jet, side), torch.zeros_like(x), atol=1e-14, rtol=0)
    # a rate of 1 is short by 2 + x, whatever its sign would be
    torch.testing.assert_close(initial_rate(1.0, output=1).residual(jet, side), 2 + x, atol=1e-14, rtol=0)


REGION = box([-1, 0], [1, 2], ["x", "t"])


def _three_outputs(conditions, **more):
    return Problem("three", REGION, lambda u, x: u.value[..., 0], conditions, outputs=3, **more)


def test_a_period_binds_every_output_that_varies():
    """u_o = (o + 1) x jumps by 2 (o + 1) across the period, and its slopes agree."""
    posed = _three_outputs(periodic(REGION), constants={1: 7.0})
    assert posed.condition_names == (
        "period of x, output 0",
        "period of x, output 2",
        *(f"period of x, slope, output {output}" for output in (0, 2)),
    )
    slope = torch.arange(1.0, 4.0, dtype=torch.float64)
    low, high = (
        Jet(end * slope.expand(5, -1), slope.expand(5, -1)[..., None], torch.empty(5, 3, 0)) for end in (-1, 1)
    )
    side = Side(torch.zeros(5, 2), torch.zeros(5, 2), high)
    jumps = [float(condition.residual(low, side).abs().max()) for condition in posed.conditions]
    assert jumps == [2.0, 6.0, 0.0, 0.0]


def test_a_period_may_name_its_output():
    names = _three_outputs(periodic(REGION, slope=False, output=1)).condition_names
    assert names == ("period of x",)
    with pytest.raises(InputError, match="axis of the region"):
        periodic(REGION, "y")


def test_names_of_conditions_are_never_shared():
    posed = _three_outputs([dirichlet(0.0, name=name) for name in ("a", "a 2", "a", "equation", "a")])
    assert posed.condition_names == ("a", "a 2", "a 3", "equation 2", "a 4")


@pytest.mark.parametrize(
    ("at", "data", "text"),
    [
        (torch.zeros(0, 2), None, "n >= 1"),
        (torch.zeros(2), None, "n >= 1"),
        (torch.zeros(2, 3), None, "of 3 axes: give 2"),
        (torch.tensor([[0.0, 2.5], [0.0, 1.0]]), None, "1 of 2 points lie outside"),
        (torch.zeros(3, 2), torch.zeros(2), "data at 3 points"),
        (torch.zeros(2, 2), torch.tensor([0.0, torch.nan]), "not finite"),
        (None, torch.zeros(2), "but no points"),
    ],
)
def test_points_and_data_that_do_not_fit_are_refused(at, data, text):
    with pytest.raises(InputError, match=text):
        _three_outputs([Condition("c", lambda jet, side: jet.value[..., 0], at=at, data=data)])
