"""The lid-driven cavity: steady Navier-Stokes on the unit square, three walls at rest, the fourth moving along itself.

The lid has speed 1: speeds jump where it meets the walls. `scraper_flow` is what Stokes's equations make of that jump, in
closed form (Taylor, in Miscellaneous papers, 1962; Goodier, Phil. Mag. 17, 554, 1934): speeds that depend on the angle alone,
and a pressure as 1 / r. `cavity` is posed for what is left beside the flows of both corners, which is continuous; `whole`
adds them to its field.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cpikan.fields.constrained import Ansatz, ConstrainedField
from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Condition, Problem, dirichlet, pinned
from cpikan.physics.regions import box

REYNOLDS = 100.0
_ODD = math.pi**2 - 4
_SLOPE, _ALONG, _DOWN = -(math.pi**2) / _ODD, 4 / _ODD, 2 * math.pi / _ODD


def scraper_flow(x: Tensor, reynolds: float, corner: int) -> Tensor:
    """Evaluate (u, v, p) (..., 3) at points (..., 2) of the flow of one corner alone, the left one (0) or the right one (1).

    Its stream function is r (a sin t + b t cos t + c t sin t), t the angle from the lid down, with which the lid moves at
    speed 1 and the wall is at rest.
    """
    sign = 1.0 - 2.0 * corner
    along, down = (1 - x[..., 0] if corner else x[..., 0]), 1 - x[..., 1]
    square, angle = (along * along + down * down).clamp_min(1e-300), torch.atan2(down, along)
    u = -_SLOPE - _DOWN * angle - (_ALONG * along * along + _DOWN * along * down) / square
    v = -_ALONG * angle + (_ALONG * along * down + _DOWN * down * down) / square
    p = -2 * (_ALONG * along + _DOWN * down) / square / reynolds
    return torch.stack([u, sign * v, sign * p], dim=-1)


def beside_corners(reynolds: float) -> Ansatz:
    """Make the form (u, v, p) = both corners' flows + network."""
    return Ansatz(
        lambda x: scraper_flow(x, reynolds, 0) + scraper_flow(x, reynolds, 1),
        lambda x: torch.ones_like(x[..., :1]).expand(*x.shape[:-1], 3),
    )


def cavity(name: str, reynolds: float = REYNOLDS) -> Problem:
    """Pose what is left of (u, v, p) beside the corners' flows; the pressure is zero in the middle of the floor.

    The momentum equations are weighed by the distances to both corners, as inertia leaves 1 / r of them there.
    """
    form = beside_corners(reynolds)

    def residual(rest: Jet, x: Tensor) -> dict[str, Tensor]:
        found = navier_stokes(form.jet(rest, x), reynolds)
        height = 1 - x[..., 1]
        near = torch.hypot(x[..., 0], height) * torch.hypot(1 - x[..., 0], height)
        return {name: value if name == "continuity" else near * value for name, value in found.items()}

    # a corner's own walls are held by its flow, and the lid by both: 2 for 1
    parts: list[tuple[str, tuple[int, ...]]] = [("x=min", (1,)), ("x=max", (0,)), ("y=min", (0, 1))]
    walls: list[Condition] = []
    for output, letter in enumerate("uv"):
        walls += [dirichlet(_without(reynolds, them, output), part, output=output) for part, them in parts]
        walls.append(dirichlet(-1.0 if letter == "u" else 0.0, "y=max", output=output))
    level = pinned([0.5, 0.0], output=2)
    return Problem(name, box([0, 0], [1, 1]), residual, [*walls, level], outputs=3)


def whole(network: Any, reynolds: float = REYNOLDS) -> ConstrainedField:
    """Add the corners' flows to what solves `cavity`: the field of (u, v, p)."""
    return ConstrainedField(network, beside_corners(reynolds))


def navier_stokes(f: Jet, reynolds: float) -> dict[str, Tensor]:
    """Evaluate momentum and continuity of steady flow, (B,) each, from the jet of (u, v, p)."""
    carried = (f.value[..., None, :2] * f.gradient[..., :2, :]).sum(-1)
    forces = carried + f.gradient[..., 2, :] - f.second[..., :2, :].sum(-1) / reynolds
    return {
        "momentum x": forces[..., 0],
        "momentum y": forces[..., 1],
        "continuity": f.gradient[..., 0, 0] + f.gradient[..., 1, 1],
    }


def _without(reynolds: float, corners: tuple[int, ...], output: int) -> Callable[[Tensor], Tensor]:
    """Make the values of a wall at rest less the flows of corners that are not its own."""
    return lambda x: -sum((scraper_flow(x, reynolds, one)[..., output] for one in corners), torch.zeros(()))
