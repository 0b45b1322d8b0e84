"""Problem: a region, residuals of a jet, conditions on the boundary, and a reference to measure against.

from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

def residual(u, x):  # u'' + u = sin(3 x)
    return u.second[..., 0, 0] + u.value[..., 0] - torch.sin(3 * x[..., 0])

problem = Problem("mine", box([-1], [1]), residual, [dirichlet(0.0)])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count

import torch
from torch import Tensor

from cpikan.errors import NUMBER, WHOLE, InputError, check_type, unknown_name
from cpikan.fields.protocol import Jet, Second, check_second
from cpikan.physics.form import Form
from cpikan.physics.region_quadrature import quadrature
from cpikan.physics.regions import Box, Region, break_name, inner_parts

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
    end. On a break of a box the points are those of its lower side and ``side.partner`` is the jet at its upper side.
    ``at`` (n, d) gives fixed points instead of a part and ``data`` (n,) what was measured there; of four points or
    more every fourth is held out. With a ``mix`` (rows, n) these points are coupled: ``residual`` gives what is summed over
    them, and the residuals are ``mix`` times that (`integral`). ``weight`` multiplies the one that the solver finds: noisy
    data, which no solution fits, weigh less than what must hold. With ``every_output`` the residual takes the number of an
    output as a third argument, and a problem has such a condition for each. ``across`` (n, d) are points on the other side of
    those ``at``, where subdomains meet: ``side.partner`` is the jet there, and none is held out. ``second`` says which second
    derivatives the residual takes. Raises InputError for points or data of a wrong shape or not finite.
    """

    name: str
    residual: Callable[..., Tensor]
    on: tuple[str, ...] | None = None
    period: str | None = None
    at: Tensor | None = None
    data: Tensor | None = None
    weight: float = 1.0
    every_output: bool = False
    mix: Tensor | None = None
    across: Tensor | None = None
    second: Second = "none"

    def __post_init__(self) -> None:
        if isinstance(self.on, str):  # one part alone
            object.__setattr__(self, "on", (self.on,))
        if self.mix is not None and (self.at is None or self.mix.ndim != 2 or self.mix.shape[1] != len(self.at)):
            count = 0 if self.at is None else len(self.at)
            raise InputError(
                f"condition {self.name!r} mixes {count} points by {tuple(self.mix.shape)}: give at= and (rows, n)"
            )
        if self.across is not None and (self.at is None or self.across.shape != self.at.shape):
            raise InputError(
                f"condition {self.name!r} has points across of {tuple(self.across.shape)}: give as many at="
            )
        if self.at is None:
            if self.data is not None:
                raise InputError(f"condition {self.name!r} has data but no points: give at=, where they were measured")
            return
        if self.at.ndim != 2 or not len(self.at):
            raise InputError(
                f"condition {self.name!r} at points of shape {tuple(self.at.shape)}: give (n, axes), n >= 1"
            )
        if self.data is not None and self.data.shape != self.at.shape[:1]:
            raise InputError(
                f"condition {self.name!r}: {tuple(self.data.shape)} data at {len(self.at)} points: give (n,)"
            )
        for what, given in (("points", self.at), ("data", self.data), ("mix", self.mix)):
            if given is not None and not bool(torch.isfinite(given).all()):
                raise InputError(f"condition {self.name!r} has {what} that are not finite: leave those out")

    def for_outputs(self, outputs: Sequence[int]) -> tuple[Condition, ...]:
        """Give the conditions that this one stands for: itself, or one per output."""
        if not self.every_output:
            return (self,)
        names = [self.name if len(outputs) == 1 else f"{self.name}, output {output}" for output in outputs]
        bound = [partial(_of_output, self.residual, output) for output in outputs]
        pairs = zip(names, bound, strict=True)
        return tuple(replace(self, name=name, residual=residual, every_output=False) for name, residual in pairs)


def _of_output(residual: Callable[..., Tensor], output: int, jet: Jet, side: Side) -> Tensor:
    return residual(jet, side, output)


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
    what errors are measured against, ``reference`` says where it comes from. ``unknowns`` are coefficients to be found
    with the field: the residuals are then called as ``residuals(jet, x, {name: (B,)})``. ``constants`` names outputs that
    stand for such coefficients, with their true values (or None): their gradient is made to vanish. ``energy(jet, x) ->
    (B,)`` is a density whose mean over the region, with half the squares of the conditions, is minimised in place of the
    equation's residuals, which then judge the field at held-out points (Deep Ritz; E and Yu 2018). ``form`` stands for
    the equation in the cost as a loss mode put it. Raises InputError for a condition on a part that the region does not
    have, and for one at points of other axes.
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
    constants: Mapping[int, float | None] = field(default_factory=dict)
    unknowns: Sequence[Unknown] = ()
    energy: Callable[[Jet, Tensor], Tensor] | None = None
    form: Form | None = None

    def __post_init__(self) -> None:
        self._check_arguments()
        varying = [output for output in range(self.outputs) if output not in self.constants]
        expanded = tuple(one for condition in self.conditions for one in condition.for_outputs(varying))
        object.__setattr__(self, "conditions", expanded)
        for condition in self.conditions:
            if condition.at is not None:
                self._check_points(condition.name, condition.at)
            for part in condition.on or ():
                if part not in self.region.parts:
                    raise unknown_name("part of the boundary", part, self.region.parts)
            inner = inner_parts(self.region)
            if any(part in inner for part in condition.on or ()) and not set(condition.on or ()) <= set(inner):
                raise InputError(f"condition {condition.name} is on breaks and walls: give one condition for each")
            if condition.period is not None and not isinstance(self.region, Box):
                raise InputError(f"condition {condition.name} is periodic: that needs a box")

    def _check_arguments(self) -> None:
        """Raise InputError for arguments of other types than they are declared with, and names that there are not."""
        check_type("name of the problem", self.name, str, "text")
        if not all(hasattr(self.region, part) for part in ("lower", "upper", "parts", "inside", "on")):
            raise InputError(f"region of {self.name} is {self.region!r}: give one, as box([0, 0], [1, 1]) or disc(1.0)")
        for what in ("residuals", "exact", "energy"):
            given = getattr(self, what)
            if not (callable(given) or (given is None and what != "residuals")):
                raise InputError(f"{what} of {self.name} is {given!r}: give a function")
        check_type(f"conditions of {self.name}", self.conditions, Sequence, "a list of conditions, as [dirichlet(0.0)]")
        for one in self.conditions:
            check_type(f"a condition of {self.name}", one, Condition, "a Condition, as dirichlet(0.0) makes it")
        check_type(f"outputs of {self.name}", self.outputs, WHOLE, "how many there are, a whole number")
        if self.outputs < 1:
            raise InputError(f"{self.outputs} outputs of {self.name}: give at least 1")
        check_second(self.second)

    def _check_points(self, name: str, at: Tensor) -> None:
        """Raise InputError for points of other axes than the region's, or outside the box around it."""
        if at.shape[1] != self.dimension:
            raise InputError(
                f"condition {name!r} at points of {at.shape[1]} axes: give {self.dimension}, as {self.name} has"
            )
        low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (self.region.lower, self.region.upper))
        slack = 1e-9 * (high - low)
        outside = ((at < low - slack) | (at > high + slack)).any(dim=1)
        if bool(outside.any()):
            raise InputError(
                f"condition {name!r}: {int(outside.sum())} of {len(at)} points lie outside the region of {self.name}, "
                f"{self.region.lower} to {self.region.upper}: leave them out, or give a larger region"
            )

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return len(self.region.lower)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Name the conditions, each by a name of its own: numbered where several have one name."""
        names = ["equation"]
        for condition in self.conditions:
            numbered = (f"{condition.name} {number}" for number in count(2))
            names.append(next(name for name in chain([condition.name], numbered) if name not in names))
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


def dirichlet(
    value: Data = 0.0, on: str | Sequence[str] | None = None, *, output: int = 0, name: str = ""
) -> Condition:
    """Impose u = value on walls (one name or several): a number, or a function of the points."""
    _check_data("value", value, output)
    return Condition(
        name or "dirichlet",
        lambda jet, side: jet.value[..., output] - _data(value, side.points),
        _parts(on),
    )


def neumann(slope: Data = 0.0, on: str | Sequence[str] | None = None, *, output: int = 0, name: str = "") -> Condition:
    """Impose du/dn = slope on walls, n the outward normal."""
    _check_data("slope", slope, output)
    return Condition(
        name or "neumann",
        lambda jet, side: (jet.gradient[..., output, :] * side.normals).sum(-1) - _data(slope, side.points),
        _parts(on),
    )


def initial(value: Data, *, output: int = 0) -> Condition:
    """Impose u = value at the beginning of time."""
    return dirichlet(value, ["t=min"], output=output, name="initial")


def initial_rate(rate: Data, *, output: int = 0) -> Condition:
    """Impose du/dt = rate at the beginning of time (the outward normal points to the past)."""
    _check_data("rate", rate, output)
    return Condition(
        "initial rate",
        lambda jet, side: -(jet.gradient[..., output, :] * side.normals).sum(-1) - _data(rate, side.points),
        ("t=min",),
    )


def periodic(region: Box, axis: str = "x", *, slope: bool = True, output: int | None = None) -> list[Condition]:
    """Impose equal values, and equal slopes unless ``slope`` is False, at both ends of an axis.

    Of every output; of one alone where ``output`` is given.
    """
    check_type("region", region, Box, "the box of the problem")
    if output is not None:
        _check_data("period", 0.0, output)
    if axis not in region.axes:
        raise unknown_name("axis of the region", axis, region.axes)
    number = region.axes.index(axis)

    def values(jet: Jet, side: Side, output: int) -> Tensor:
        assert side.partner is not None
        return jet.value[..., output] - side.partner.value[..., output]

    def slopes(jet: Jet, side: Side, output: int) -> Tensor:
        assert side.partner is not None
        return jet.gradient[..., output, number] - side.partner.gradient[..., output, number]

    kinds = [(f"period of {axis}", values), (f"period of {axis}, slope", slopes)][: 2 if slope else 1]
    found = [Condition(name, kind, (f"{axis}=min",), axis, every_output=True) for name, kind in kinds]
    return found if output is None else [one for condition in found for one in condition.for_outputs([output])]


def interface(
    region: Box,
    axis: str,
    place: float,
    flux: tuple[float, float] = (1.0, 1.0),
    *,
    output: int = 0,
    jumps: tuple[Data, Data] = (0.0, 0.0),
) -> list[Condition]:
    """Impose at a break equal values and a flux without a jump: ``flux`` times the slope, by the coefficients below and
    above it. With ``jumps`` value and flux rise by so much from below to above. Raises InputError where the region has no
    such break."""
    part, number = break_name(axis, place), region.axes.index(axis) if axis in region.axes else -1
    if part not in region.inner:
        raise unknown_name("break of the region", part, region.inner)

    def values(jet: Jet, side: Side) -> Tensor:
        assert side.partner is not None
        return jet.value[..., output] - side.partner.value[..., output] + _data(jumps[0], side.points)

    def fluxes(jet: Jet, side: Side) -> Tensor:
        assert side.partner is not None
        above = side.partner.gradient[..., output, number]
        return flux[0] * jet.gradient[..., output, number] - flux[1] * above + _data(jumps[1], side.points)

    return [Condition(f"value at {part}", values, (part,)), Condition(f"flux at {part}", fluxes, (part,))]


def measured(points: Tensor, values: Tensor, *, output: int = 0, weight: float = 1.0) -> Condition:
    """Impose u = values (n,) at the points (n, d), as an instrument gave them; with noise, a ``weight`` far below 1."""
    if points.ndim != 2 or values.shape != points.shape[:1]:
        raise InputError(
            f"{tuple(values.shape)} values at points of shape {tuple(points.shape)}: give (n,) and (n, axes)"
        )

    def residual(jet: Jet, side: Side) -> Tensor:
        assert side.data is not None
        return jet.value[..., output] - side.data

    points, values = points.detach().double(), values.detach().double()  # equations are solved in float64
    return Condition("measured", residual, at=points, data=values, weight=weight)


def pinned(point: Sequence[float], value: float = 0.0, *, output: int = 0) -> Condition:
    """Impose u = value at one point: what fixes the constant of a solution whose slopes alone are given."""
    at = torch.tensor([[float(v) for v in point]], dtype=torch.float64)
    return Condition("pinned", lambda jet, side: jet.value[..., output] - value, at=at)


def integral(
    region: Region,
    total: float,
    of: Callable[[Jet, Tensor], Tensor] | None = None,
    *,
    on: str | None = None,
    nodes: int = 16,
) -> Condition:
    """Impose that the integral of ``of(jet, x) -> (n,)``, by default the first output, is ``total``: over a region, or a part.

    ``nodes`` is the number of Gauss-Legendre nodes per axis, or per chord of an outline (`quadrature`). The integrand may be
    any function of the jet's value and gradient, such as its square. Raises InputError for a part that is none.
    """
    points, weights = (torch.from_numpy(part) for part in quadrature(region, nodes, on))
    share = total / float(weights.sum())

    def residual(jet: Jet, side: Side) -> Tensor:
        return (jet.value[..., 0] if of is None else of(jet, side.points)) - share

    name = "integral" if on is None else f"integral over {on}"
    return Condition(name, residual, at=points, mix=weights[None])


def _parts(on: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Take the name of one part, or of several."""
    return None if on is None else (on,) if isinstance(on, str) else tuple(on)


def _check_data(what: str, value: Data, output: int) -> None:
    """Raise InputError for what is no number, tensor or function, and for an output that cannot be."""
    if not callable(value):
        check_type(what, value, (NUMBER, Tensor), "a number, or a function of the points")
    check_type("output", output, WHOLE, "a whole number")
    if output < 0:
        raise InputError(f"output {output}: give 0 or more")


def _data(value: Data, points: Tensor) -> Tensor | float:
    """Evaluate data at points (B, d); raises InputError where a function of the user gives another shape than (B,)."""
    if not callable(value):
        return value
    found = value(points)
    if isinstance(found, Tensor) and found.shape not in ((), points.shape[:-1]):
        raise InputError(
            f"data of a condition have the shape {tuple(found.shape)} at {len(points)} points: give ({len(points)},)"
        )
    return found
