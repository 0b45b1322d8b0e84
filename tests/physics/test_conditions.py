"""Conditions on the boundary: what their residuals vanish for."""

from __future__ import annotations

import numpy as np
import torch

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Side, initial_rate
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
