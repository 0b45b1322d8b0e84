"""Forms of solutions on a box: u = lift + distance * v, for conditions at ends of axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.func import grad

from cpikan.fields.constrained import Ansatz
from cpikan.fields.end_distance import EndDistance
from cpikan.fields.mapped import PointMap
from cpikan.physics.bound_condition import Bound
from cpikan.physics.regions import Box

# what v may depend on along an axis, t from 0 to 1: functions whose slopes vanish where that of u is given, and that generate
# all others of the kind
_FUNCTIONS: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "plain": lambda t: [2 * t - 1],
    "low": lambda t: [2 * t**2 - 1, 2 * t**3 - 1],
    "high": lambda t: [2 * (1 - t) ** 2 - 1, 2 * (1 - t) ** 3 - 1],
    "ends": lambda t: [
        2 * t**2 * (3 - 2 * t) - 1,
        32 * t**2 * (1 - t) ** 2 - 1,
        2 * t**2 * (15 - 50 * t + 60 * t**2 - 24 * t**3) - 1,
    ],
    "period": lambda t: [torch.cos(2 * math.pi * t), torch.sin(2 * math.pi * t)],
}


@dataclass
class Line:
    """The conditions of one output along one axis: by end (0 or 1) on the value and on the slope, and a period."""

    values: dict[int, Bound] = field(default_factory=dict)
    slopes: dict[int, Bound] = field(default_factory=dict)
    periods: list[str] = field(default_factory=list)

    @property
    def free(self) -> tuple[int, ...]:
        """List the ends where the slope is given and the value is not."""
        return tuple(sorted(end for end in self.slopes if end not in self.values))

    @property
    def kind(self) -> str:
        """Name what v may depend on."""
        if len(self.periods) == 2:
            return "period"
        return {(): "plain", (0,): "low", (1,): "high", (0, 1): "ends"}[self.free]

    def basis(self, end: int, order: int) -> np.ndarray:
        """Find the cubic's coefficients (4,) by powers of t whose value (order 0) or slope by t (1) at an end is 1.

        It vanishes in value and slope wherever else something is given: at an end with a slope in both, so that
        Robin's condition sees nothing of it.
        """
        rows, wanted = [], []
        for at in (0, 1):
            orders = (0, 1) if at in self.slopes else (0,) if at in self.values else ()
            for each in orders:
                rows.append([1.0, at, at, at] if each == 0 else [0.0, 1.0, 2.0 * at, 3.0 * at])
                wanted.append(float((at, each) == (end, order)))
        count = len(rows)
        found = np.zeros(4)
        found[:count] = np.linalg.solve(np.array(rows)[:, :count], wanted)
        return found

    def distance(self, t: Tensor) -> Tensor:
        """Vanish where the value is given, twice where the slope is too, with no slope where it alone is given."""
        low, high = ((end in self.values) * (1 + (end in self.slopes)) for end in (0, 1))
        if 1 in self.free or 0 in self.free:
            order, s = (low, t) if 1 in self.free else (high, 1 - t)
            return torch.stack([torch.ones_like(t), s * (2 - s), s**2 * (3 - 2 * s)])[order]
        scale = (low + high) ** (low + high) / (low**low * high**high)
        return scale * t**low * (1 - t) ** high


class BoxForm:
    """Lift and distance of one output on a box; see ``box_ansatz``."""

    def __init__(self, region: Box, lines: Sequence[Line]) -> None:
        self._lower, self._upper = (torch.tensor(v, dtype=torch.float64) for v in (region.lower, region.upper))
        self._lines = lines

    def lift(self, x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
        """Interpolate between the ends of the last axis what those of the others leave."""
        axes = range(len(self._lines)) if axes is None else axes
        if not axes:
            return torch.zeros_like(x[:, 0])
        others, axis = axes[:-1], axes[-1]
        line, found = self._lines[axis], self.lift(x, others)
        for end in sorted(line.values.keys() | line.slopes.keys()):
            there, normals = self._at(x, axis, end)
            below = self.lift(there, others)
            held = below
            if end in line.values:
                held = line.values[end].value(there, normals)
                found = found + self._basis(x, axis, end, 0) * (held - below)
            if end in line.slopes:
                h, c = line.slopes[end].flux(there, normals)
                slope = (grad(lambda p: self.lift(p, others).sum())(there) * normals).sum(-1)
                found = found + self._basis(x, axis, end, 1) * (h - c * held - slope)
        return found

    def distance(self, x: Tensor) -> Tensor:
        """Multiply the distances of all axes, and what gives Robin's slope -c to what has none."""
        found = torch.ones_like(x[:, 0])
        for axis, line in enumerate(self._lines):
            found = found * line.distance(self._share(x, axis))
            for end in line.free:
                c = line.slopes[end].flux(*self._at(x, axis, end))[1]
                reach = c * self._basis(x, axis, end, 1)  # of slope c at the end, 0 there, and of the other sign inside
                found = found * torch.where(c >= 0, 1 - reach, 1 / (1 + torch.where(c >= 0, 0 * reach, reach)))
        return found

    def _share(self, x: Tensor, axis: int) -> Tensor:
        return (x[:, axis] - self._lower[axis]) / (self._upper[axis] - self._lower[axis])

    def _at(self, x: Tensor, axis: int, end: int) -> tuple[Tensor, Tensor]:
        """Move points to an end of an axis; gives the outward normals too."""
        here = torch.arange(x.shape[1]) == axis
        normals = (here.double() * (2 * end - 1)).expand(len(x), -1)
        return torch.where(here, (self._upper if end else self._lower)[axis], x), normals

    def _basis(self, x: Tensor, axis: int, end: int, order: int) -> Tensor:
        """Evaluate the cubic of an end; that of order 1 has the outward slope 1 in physical units."""
        powers = self._lines[axis].basis(end, order)
        t = self._share(x, axis)
        found = powers[0] + t * (powers[1] + t * (powers[2] + t * powers[3]))
        return found if order == 0 else found * (2 * end - 1) * (self._upper[axis] - self._lower[axis])


def box_ansatz(region: Box, lines: Sequence[Sequence[Line]]) -> Ansatz:
    """Make u = lift + distance v of conditions by output and axis.

    Along an axis values and slopes have the cubic Hermite interpolant, or a lower one; the lift is the transfinite one
    (Gordon and Hall, Numer. Math. 21, 109, 1973). Where only the slope is given v is a function of t^2 and t^3, which have none
    at the end, and of which every smooth function without a slope there is one; where there is a period, of its cosine
    and sine. Robin's du/dn + c u = h has the factor 1 - c q or 1 / (1 + c q), q of outward slope 1. A value and a slope
    at one end, as at the start of a wave, need t^2 alone.
    """
    forms = [BoxForm(region, one) for one in lines]
    bound = tuple(tuple((a, bool(end)) for a, one in enumerate(line) for end in one.values) for line in lines)
    values = EndDistance(region.lower, region.upper, bound)
    plain = not any(one.slopes for line in lines for one in line)
    return Ansatz(
        lambda x: torch.stack([form.lift(x) for form in forms], dim=-1),
        values if plain else lambda x: torch.stack([form.distance(x) for form in forms], dim=-1),
        _point_map(region, [line.kind for line in lines[0]]),
    )


def _point_map(region: Box, kinds: Sequence[str]) -> PointMap | None:
    """Embed every axis by the functions of its kind; None where all are the coordinates themselves."""
    if all(kind == "plain" for kind in kinds):
        return None
    lower, upper = (torch.tensor(v, dtype=torch.float64) for v in (region.lower, region.upper))

    def function(x: Tensor) -> Tensor:
        t = (x - lower) / (upper - lower)
        return torch.stack([one for axis, kind in enumerate(kinds) for one in _FUNCTIONS[kind](t[:, axis])], dim=-1)

    count = sum(len(_FUNCTIONS[kind](torch.zeros(1))) for kind in kinds)
    return PointMap(function, len(kinds), (-1.0,) * count, (1.0,) * count)
