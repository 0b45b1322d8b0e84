"""Problem: a region, residuals of a jet, conditions on the boundary, and a reference to measure against.

from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

def residual(u, x):  # u'' + u = sin(3 x)
    return u.second[..., 0, 0] + u.value[..., 0] - torch.sin(3 * x[..., 0])

problem = Problem("mine", box([-1], [1]), residual, [dirichlet(0.0)])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cpikan.errors import InputError, unknown_name
from cpikan.fields.protocol import Jet, Second
from cpikan.physics.regions import Box, Region

Data = float | Tensor | Callable[[Tensor], Tensor]
Residuals = Callable[..., "Tensor | Mapping[str, Tensor]"]  # of (jet, x), and the unknowns where there are such


@dataclass(frozen=True)
class Side:
    """Points (B, d) of a boundary with what a condition may need there: normals, the jet at partner points, data (B,)."""

    points: Tensor
    normals: Tensor
    partner: Jet | None = None
    data: Tensor | None = None


@dataclass(frozen=True)
class Condition:
    """A residual on parts of the boundary: ``residual(jet, side) -> (B,)``; ``on`` None stands for all walls.

    ``period`` names an axis: the points are then those of its lower end, and ``side.partner`` is the jet at its upper
    end. ``at`` (n, d) gives fixed points instead of a part and ``data`` (n,) what was measured there; every fourth is held
    out. ``weight`` multiplies the one that the solver finds: noisy data, which no solution fits, weigh less than what
    must hold.
    """

    name: str
    residual: Callable[[Jet, Side], Tensor]
    on: tuple[str, ...] | None = None
    period: str | None = None
    at: Tensor | None = None
    data: Tensor | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Unknown:
    """An unknown coefficient of an equation: where the search for it starts, and its true value if that is known."""

    name: str
    start: float = 0.0
    truth: float | None = None


@dataclass(frozen=True)
class Problem:
    """What a field must satisfy.

    ``residuals(jet, x)`` gives the equation at interior points x (B, d): one residual (B,), or several by name; the jet
    holds value (B, outputs), gradient (B, outputs, d) and ``second`` as named there. ``exact(x)`` (B,) or (B, outputs) is
    what errors are measured against, ``reference`` says where it comes from. ``unknowns`` are coefficients to be found with
    the field: the residuals are then called as ``residuals(jet, x, {name: (B,)})``. ``constants`` names outputs that stand
    for such coefficients, with their true values: their gradient is made to vanish. ``energy(jet, x) -> (B,)`` is a density
    whose mean over the region, with half the squares of the conditions, is minimised in place of the equation's residuals,
    which then judge the field at held-out points (Deep Ritz; E and Yu 2018). Raises InputError for a condition on a part
    that the region does not have.
    """

    name: str
    region: Region
    residuals: Residuals
    conditions: Sequence[Condition]
    exact: Callable[[Tensor], Tensor] | None = None
    reference: str = "none"
    summary: str = ""
    outputs: int = 1
    second: Second = "axes"
    constants: Mapping[int, float] = field(default_factory=dict)
    unknowns: Sequence[Unknown] = ()
    energy: Callable[[Jet, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        for condition in self.conditions:
            for part in condition.on or ():
                if part not in self.region.parts:
                    raise unknown_name("part of the boundary", part, self.region.parts)
            if condition.period is not None and not isinstance(self.region, Box):
                raise InputError(f"condition {condition.name} is periodic: that needs a box")

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return len(self.region.lower)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Name the conditions, numbered where several have one name."""
        names = ["equation"]
        for condition in self.conditions:
            same = sum(other.name == condition.name for other in self.conditions[: len(names) - 1])
            names.append(f"{condition.name} {same + 1}" if same or condition.name in names else condition.name)
        return tuple(names[1:])

    def interior(self, jet: Jet, x: Tensor) -> dict[str, Tensor]:
        """Evaluate the residuals by name, (B,) each; the jet has the unknowns as further outputs.

        Raises InputError where the user's function gives another shape.
        """
        if self.unknowns:
            known = Jet(*(part[:, : self.outputs] for part in jet))
            unknown = {one.name: jet.value[:, self.outputs + n] for n, one in enumerate(self.unknowns)}
            named = self._named(self.residuals(known, x, unknown), x)
        else:
            named = self._named(self.residuals(jet, x), x)
        for output in self.constants:
            for axis in range(self.dimension):
                named[f"constant {output}, axis {axis}"] = jet.gradient[..., output, axis]
        return named

    def energies(self, jet: Jet, x: Tensor) -> dict[str, Tensor]:
        """Evaluate the energy density, (B,); raises InputError for another shape."""
        assert self.energy is not None
        return self._named(self.energy(jet, x), x)

    def _named(self, found: Tensor | Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        named = dict(found) if isinstance(found, Mapping) else {"equation": found}
        for name, value in named.items():
            if not isinstance(value, Tensor) or value.shape != x.shape[:-1]:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"residual {name!r} of {self.name} is {shape} for {len(x)} points: give ({len(x)},)")
        return named

    def reference_values(self, x: Tensor) -> Tensor:
        """Evaluate the reference at points (B, d), (B, outputs of the reference); raises InputError without one."""
        if self.exact is None:
            raise InputError(f"problem {self.name} has no reference: give exact=")
        with torch.no_grad():
            found = self.exact(x)
        return found.unsqueeze(-1) if found.ndim == 1 else found


def dirichlet(value: Data = 0.0, on: Sequence[str] | None = None, *, output: int = 0, name: str = "") -> Condition:
    """Impose u = value on walls: a number, or a function of the points."""
    return Condition(
        name or "dirichlet",
        lambda jet, side: jet.value[..., output] - _data(value, side.points),
        None if on is None else tuple(on),
    )


def neumann(slope: Data = 0.0, on: Sequence[str] | None = None, *, output: int = 0, name: str = "") -> Condition:
    """Impose du/dn = slope on walls, n the outward normal."""
    return Condition(
        name or "neumann",
        lambda jet, side: (jet.gradient[..., output, :] * side.normals).sum(-1) - _data(slope, side.points),
        None if on is None else tuple(on),
    )


def initial(value: Data, *, output: int = 0) -> Condition:
    """Impose u = value at the beginning of time."""
    return dirichlet(value, ["t=min"], output=output, name="initial")


def initial_rate(rate: Data, *, output: int = 0) -> Condition:
    """Impose du/dt = rate at the beginning of time (the outward normal points to the past)."""
    return Condition(
        "initial rate",
        lambda jet, side: -(jet.gradient[..., output, :] * side.normals).sum(-1) - _data(rate, side.points),
        ("t=min",),
    )


def periodic(region: Box, axis: str = "x", *, slope: bool = True) -> list[Condition]:
    """Impose equal values, and equal slopes unless ``slope`` is False, at both ends of an axis."""
    number = region.axes.index(axis)

    def values(jet: Jet, side: Side) -> Tensor:
        assert side.partner is not None
        return jet.value[..., 0] - side.partner.value[..., 0]

    def slopes(jet: Jet, side: Side) -> Tensor:
        assert side.partner is not None
        return jet.gradient[..., 0, number] - side.partner.gradient[..., 0, number]

    same = Condition(f"period of {axis}", values, (f"{axis}=min",), axis)
    return [same, Condition(f"period of {axis}, slope", slopes, (f"{axis}=min",), axis)] if slope else [same]


def measured(points: Tensor, values: Tensor, *, output: int = 0, weight: float = 1.0) -> Condition:
    """Impose u = values (n,) at the points (n, d), as an instrument gave them; with noise, a ``weight`` far below 1."""
    if points.ndim != 2 or values.shape != points.shape[:1]:
        raise InputError(
            f"{tuple(values.shape)} values at points of shape {tuple(points.shape)}: give (n,) and (n, axes)"
        )

    def residual(jet: Jet, side: Side) -> Tensor:
        assert side.data is not None
        return jet.value[..., output] - side.data

    return Condition("measured", residual, at=points, data=values, weight=weight)


def _data(value: Data, points: Tensor) -> Tensor | float:
    return value(points) if callable(value) else value
