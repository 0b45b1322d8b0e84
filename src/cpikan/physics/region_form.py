"""Forms of solutions on outlines: u = lift + distance * v by approximate distances of the edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import grad

from cpikan.fields.constrained import Ansatz
from cpikan.fields.mapped import PointMap
from cpikan.physics.bound_condition import Bound
from cpikan.physics.distances import Distance, edge_distance, joined, shares
from cpikan.physics.edges import Arc, Edge, Segment
from cpikan.physics.outline import Outline

_INSIDE = 300  # points where it is tried whether v may still be any function


@dataclass(frozen=True)
class _Piece:
    """One edge with the condition on it, its distance, and where a point is taken to on it."""

    bound: Bound
    distance: Distance
    foot: Callable[[Tensor], tuple[Tensor, Tensor]]

    def value(self, x: Tensor) -> Tensor:
        """Evaluate the value that is given at the feet of points."""
        return self.bound.value(*self.foot(x))

    def flux(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate what is given of the slope there."""
        return self.bound.flux(*self.foot(x))


class RegionForm:
    """Lift, distance and point_map of one output on an outline; see ``region_ansatz``."""

    def __init__(self, outline: Outline, bounds: Sequence[tuple[str, Bound]]) -> None:
        self._outline = outline
        pieces = [
            _Piece(one, edge_distance(edge, outline.size), foot_on(edge, outline))
            for part, one in bounds
            for name, edge in outline.edges
            if name == part
        ]
        self._values = [piece for piece in pieces if not piece.bound.slope]
        self._slopes = [piece for piece in pieces if piece.bound.slope]
        hollow = [e.radius for _, e in outline.edges if isinstance(e, Arc) and e.sweep_rad < 0]
        self._reach = min([0.5 * outline.size, *hollow])

    def lift(self, x: Tensor) -> Tensor:
        """Interpolate the values by inverse distances, and take the slopes that this misses off along the inward normals."""
        found = self._interpolated(x)
        if not self._slopes:
            return found
        near, inwards = self._near(x), grad(lambda p: self._near(p).sum())(x)
        missed, weights = torch.zeros_like(near), shares([piece.distance(x) for piece in self._slopes])
        slope = -(grad(lambda p: self._interpolated(p).sum())(x) * inwards).sum(-1) if self._values else 0.0
        for weight, piece in zip(weights, self._slopes, strict=True):
            h, c = piece.flux(x)
            missed = missed + weight * (h - c * found - slope)
        return found - near * self._cut(x) * missed

    def distance(self, x: Tensor) -> Tensor:
        """Vanish on the edges whose values are given; of slope -c, or none, on those whose slopes are."""
        if not self._slopes:
            return self._far(x)
        near, found = self._near(x), torch.ones_like(x[:, 0])
        if self._values:
            inwards, outwards = (grad(lambda p, f=f: f(p).sum())(x) for f in (self._near, self._far))
            far = self._far(x)
            found = far * (1 - near * (inwards * outwards).sum(-1) / (far + near + 1e-280))
        weights = shares([piece.distance(x) for piece in self._slopes])
        c = sum((w * piece.flux(x)[1] for w, piece in zip(weights, self._slopes, strict=True)), torch.zeros_like(near))
        return found * torch.where(c >= 0, 1 + c * near, 1 / (1 - torch.where(c >= 0, 0 * near, c * near)))

    def point_map(self) -> PointMap | None:
        """Make the map to x - s grad s, s^2 and s^3, s = phi exp(-phi / reach) with the distance phi of the edges with slopes.

        None where there are none. By phi all of it has the slope 0 on those edges, where s is 0 and has the slope 1.
        """
        if not self._slopes:
            return None

        def near(p: Tensor) -> Tensor:
            phi = self._near(p)
            return phi * torch.exp(-phi / self._reach)

        def function(x: Tensor) -> Tensor:
            s, inwards = near(x), grad(lambda p: near(p).sum())(x)
            flat = s / self._reach
            return torch.cat([x - s[:, None] * inwards, torch.stack([flat**2, flat**3], dim=-1)], dim=-1)

        points = torch.from_numpy(self._outline.inside(_unit(_INSIDE), clustered=False))
        found = function(points)
        low, high = found.amin(dim=0), found.amax(dim=0)
        margin = 0.02 * (high - low)
        return PointMap(function, 2, tuple((low - margin).tolist()), tuple((high + margin).tolist()))

    def tells_apart(self) -> bool:
        """Tell whether v of the map may be any function inside: whether its Jacobian has full rank there."""
        point_map = self.point_map()
        if point_map is None:
            return True
        points = torch.from_numpy(self._outline.inside(_unit(_INSIDE), clustered=False))
        slopes = point_map.jet(points, "none").gradient
        return bool(torch.linalg.svdvals(slopes)[:, -1].min() > 1e-3)

    def _near(self, x: Tensor) -> Tensor:
        return joined([piece.distance(x) for piece in self._slopes])

    def _far(self, x: Tensor) -> Tensor:
        return joined([piece.distance(x) for piece in self._values]) if self._values else torch.ones_like(x[:, 0])

    def _cut(self, x: Tensor) -> Tensor | float:
        """Give 1 on the edges with slopes and 0 on those with values."""
        return self._far(x) / (self._far(x) + self._near(x) + 1e-280) if self._values else 1.0

    def _interpolated(self, x: Tensor) -> Tensor:
        if not self._values:
            return torch.zeros_like(x[:, 0])
        weights = shares([piece.distance(x) for piece in self._values])
        parts = [weight * piece.value(x) for weight, piece in zip(weights, self._values, strict=True)]
        return sum(parts[1:], parts[0])


def region_ansatz(outline: Outline, bounds: Sequence[Sequence[tuple[str, Bound]]]) -> tuple[Ansatz, bool]:
    """Make u = lift + distance v of conditions by output, each with the part that it is on; tells whether v is free inside.

    Values: inverse distances weigh what is given at the feet of a point on every edge (transfinite interpolation), and the
    distance joins the edges (Rvachev; Sukumar and Srivastava, CMAME 389, 114333, 2022). Their form of slopes has those of v;
    here v is a function of x - s grad s, s^2 and s^3, which have no slope on the edges whose slopes are given.
    """
    forms = [RegionForm(outline, one) for one in bounds]
    ansatz = Ansatz(
        lambda x: torch.stack([form.lift(x) for form in forms], dim=-1),
        lambda x: torch.stack([form.distance(x) for form in forms], dim=-1),
        forms[0].point_map(),
    )
    return ansatz, forms[0].tells_apart()


def foot_on(edge: Edge, outline: Outline) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Take points (B, 2) to the line or the circle of an edge, with its outward normals there.

    Of a circle whose centre is inside there is no smooth way to it: points stay where they are, and what is given has to
    be given inside too.
    """
    if isinstance(edge, Segment):
        start = torch.tensor(edge.start, dtype=torch.float64)
        out = torch.from_numpy(edge.normals(np.zeros(1))[0])
        return lambda x: (x - ((x - start) @ out)[:, None] * out, out.expand(len(x), -1))
    assert isinstance(edge, Arc)
    centre, sign = torch.tensor(edge.centre, dtype=torch.float64), 1.0 if edge.sweep_rad > 0 else -1.0
    hollow = not bool(outline.contains(centre.numpy()[None])[0])

    def foot(x: Tensor) -> tuple[Tensor, Tensor]:
        away = x - centre
        radius = (away.square().sum(-1, keepdim=True) + (0.0 if hollow else 1e-280)).sqrt()
        there = centre + edge.radius * away / radius if hollow else x
        return there, sign * away / radius

    return foot


def _unit(count: int) -> np.ndarray:
    return np.random.default_rng(11).random((count, 2))
