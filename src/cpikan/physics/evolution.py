"""Evolution: which axis of a problem is time, and what a solution hands on from one slab of time to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cpikan.fields.protocol import Jet
from cpikan.physics.linearise import pullback
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box


@dataclass(frozen=True)
class Evolution:
    """The axis of time, and the outputs whose values and whose rates are continuous in it."""

    time: int
    values: tuple[int, ...]
    rates: tuple[int, ...]


def parts_of(problem: Problem, condition: Condition) -> tuple[str, ...]:
    """Name the parts of the boundary that a condition is on."""
    return condition.on if condition.on is not None else tuple(problem.region.walls)


def time_axis(problem: Problem) -> int | None:
    """Find the axis along which a problem evolves: conditions at its lower end, none at its upper.

    An axis called t is the only one looked at where there is one; without it the axis has to be the only one of that kind.
    None for a problem that does not evolve, or that asks for coefficients or holds measured data, which tie all times.
    """
    region = problem.region
    if not isinstance(region, Box) or problem.constants or problem.unknowns or problem.energy is not None:
        return None
    if any(condition.at is not None for condition in problem.conditions):
        return None
    parts = {part for condition in problem.conditions for part in parts_of(problem, condition)}
    ends = parts | {f"{c.period}=max" for c in problem.conditions if c.period is not None}
    names = ("t",) if "t" in region.axes else region.axes
    found = [axis for axis in names if f"{axis}=min" in parts and f"{axis}=max" not in ends]
    return region.axes.index(found[0]) if len(found) == 1 else None


def evolution(problem: Problem) -> Evolution | None:
    """Tell what is handed on through time; None for a problem that does not evolve."""
    time = time_axis(problem)
    if time is None:
        return None
    assert isinstance(problem.region, Box)
    start = f"{problem.region.axes[time]}=min"
    values, rates = set[int](), set[int]()
    for condition in problem.conditions:
        if start in parts_of(problem, condition):
            bound = _bound(problem, condition, time)
            values |= bound[0] | bound[1]
            rates |= bound[1]
    first, second = derived(problem, time)
    return Evolution(time, tuple(sorted(values | first | second)), tuple(sorted(rates | second)))


def drawn_jet(problem: Problem) -> tuple[Jet, torch.Tensor]:
    """Draw a jet at a few points inside, its streams leaves to derive by."""
    generator = torch.Generator().manual_seed(1)
    d, outputs = problem.dimension, problem.outputs + len(problem.unknowns)
    second = {"axes": (d,), "full": (d, d), "laplacian": (), "none": (0,)}[problem.second]
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (problem.region.lower, problem.region.upper))
    points = low + (high - low) * torch.rand(5, d, generator=generator, dtype=torch.float64)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.rand(5, outputs, *shape, generator=generator, dtype=torch.float64).requires_grad_()

    return Jet(leaf(), leaf(d), leaf(*second)), points


def _outputs(push: torch.Tensor) -> set[int]:
    """List the outputs (second axis) that something depends on."""
    return {o for o in range(push.shape[1]) if bool((push[:, o] != 0).any())}


def _bound(problem: Problem, condition: Condition, time: int) -> tuple[set[int], set[int]]:
    """List the outputs whose value, and whose rate, a condition at the start binds."""
    jet, points = drawn_jet(problem)
    partner = None if condition.period is None else drawn_jet(problem)[0]
    push = pullback(condition.residual(jet, Side(points, torch.ones_like(points), partner)), [jet])[0]
    others = [axis for axis in range(problem.dimension) if axis != time]
    values = _outputs(push.value) | _outputs(push.gradient[..., others].flatten(2))
    return values, _outputs(push.gradient[..., time])


def derived(problem: Problem, axis: int) -> tuple[set[int], set[int]]:
    """List the outputs whose first, and whose second derivative along an axis stands in the equation."""
    jet, points = drawn_jet(problem)
    first, second = set[int](), set[int]()
    for residual in problem.interior(jet, points).values():
        push = pullback(residual, [jet])[0]
        first |= _outputs(push.gradient[..., axis])
        bend = push.second
        if problem.second == "laplacian":
            second |= _outputs(bend)
        elif problem.second != "none":
            second |= _outputs(bend[..., axis, axis] if problem.second == "full" else bend[..., axis])
    return first, second
