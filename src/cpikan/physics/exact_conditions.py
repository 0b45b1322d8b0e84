"""Conditions that hold exactly: values on the ends of a box taken out of a problem and put into the form of its solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from cpikan.fields.constrained import Ansatz
from cpikan.fields.end_distance import EndDistance
from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box


@dataclass(frozen=True)
class _End:
    """One end of an axis where an output has the values that a condition asks for."""

    axis: int
    upper: bool
    condition: Condition


def with_exact_conditions(
    problem: Problem, through: Callable[[Ansatz], Ansatz] = lambda ansatz: ansatz
) -> tuple[Problem, Ansatz | None]:
    """Pose a problem on a box for v in u = lift + distance v, where values at ends of axes hold whatever v is.

    Those conditions are left out; all others stay. The lift is the transfinite interpolation of the values (Gordon and Hall,
    Numer. Math. 21, 109, 1973), the distance a product of t, 1 - t or 4 t (1 - t) over the axes, t from 0 to 1. The problem
    itself and None where no condition is of that kind. Values that differ at a corner are met by one of the two there.
    ``through`` may exchange the ansatz for one of the same distance, as a lift by series.
    """
    ends, rest = _split(problem)
    if not any(ends):
        return problem, None
    assert isinstance(problem.region, Box)
    ansatz = through(_ansatz(problem.region, ends))

    def jet_of(jet: Jet, x: Tensor) -> Jet:
        second = "none" if jet.second.ndim == 3 and jet.second.shape[-1] == 0 else problem.second
        return ansatz.jet(jet, x, second)

    def residuals(jet: Jet, x: Tensor, *unknown: Any) -> Any:
        return problem.residuals(jet_of(jet, x), x, *unknown)

    def bound(condition: Condition) -> Condition:
        across = WeakTensorKeyDictionary()  # the same points again, so that the ansatz is known there

        def residual(jet: Jet, side: Side) -> Tensor:
            partner = None
            if side.partner is not None and condition.period is not None:
                assert isinstance(problem.region, Box)
                axis = problem.region.axes.index(condition.period)
                there = across.get(side.points)
                if there is None:
                    there = side.points.clone()
                    there[:, axis] = problem.region.upper[axis]
                    across[side.points] = there
                partner = jet_of(side.partner, there)
            return condition.residual(jet_of(jet, side.points), replace(side, partner=partner))

        return replace(condition, residual=residual)

    energy = problem.energy
    posed = replace(
        problem,
        residuals=residuals,
        conditions=[bound(condition) for condition in rest],
        exact=None,
        energy=None if energy is None else lambda jet, x: energy(jet_of(jet, x), x),
        form=None if problem.form is None else problem.form.behind(jet_of),
    )
    return posed, ansatz


def _split(problem: Problem) -> tuple[list[list[_End]], list[Condition]]:
    """Find for every output the ends where its values are given, and the conditions that are of another kind."""
    ends: list[list[_End]] = [[] for _ in range(problem.outputs)]
    if not isinstance(problem.region, Box) or problem.region.breaks or problem.unknowns or problem.constants:
        return ends, list(problem.conditions)
    names = {
        f"{axis}={end}": (number, end == "max")
        for number, axis in enumerate(problem.region.axes)
        for end in ("min", "max")
    }
    rest = []
    for condition in problem.conditions:
        output = _bound_output(problem, condition)
        parts = problem.region.walls if condition.on is None else condition.on
        taken = set() if output is None else {(end.axis, end.upper) for end in ends[output]}
        places = [names[part] for part in parts]
        if output is None or taken & set(places):
            rest.append(condition)
        else:
            ends[output] += [_End(axis, upper, condition) for axis, upper in places]
    return ends, rest


def _bound_output(problem: Problem, condition: Condition) -> int | None:
    """Tell whose values a condition gives, if its residual is u_k - data and nothing else; tried on jets drawn at random."""
    if condition.at is not None or condition.period is not None:
        return None
    generator = torch.Generator().manual_seed(3)
    d = problem.dimension
    low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (problem.region.lower, problem.region.upper))
    points = low + (high - low) * torch.rand(6, d, generator=generator, dtype=torch.float64)

    def drawn() -> Jet:
        return Jet(*(torch.randn(6, problem.outputs, *tail, generator=generator).double() for tail in ((), (d,), (0,))))

    side = Side(points, torch.ones_like(points))
    jets = [drawn(), drawn()]
    found = [condition.residual(jet, side) for jet in jets]
    for output in range(problem.outputs):
        data = [value - jet.value[:, output] for value, jet in zip(found, jets, strict=True)]
        if torch.allclose(data[0], data[1], rtol=1e-12, atol=1e-12):
            return output
    return None


def _ansatz(region: Box, ends: Sequence[Sequence[_End]]) -> Ansatz:
    bound = tuple(tuple((end.axis, end.upper) for end in of) for of in ends)
    distance = EndDistance(region.lower, region.upper, bound)
    lower, upper = (torch.tensor(bound, dtype=torch.float64) for bound in (region.lower, region.upper))

    def lift_of(x: Tensor, of: Sequence[_End], axes: Sequence[int], outputs: int, output: int) -> Tensor:
        """Interpolate between the ends of the last axis what those of the others leave."""
        if not axes:
            return torch.zeros_like(x[:, 0])
        *others, axis = axes
        found, here = lift_of(x, of, others, outputs, output), [end for end in of if end.axis == axis]
        for end in here:
            there = torch.where(torch.arange(x.shape[1]) == axis, (upper if end.upper else lower)[axis], x)
            missed = _values(end.condition, there, outputs) - lift_of(there, of, others, outputs, output)
            t = distance.share(x, axis)
            found = found + (1 if len(here) == 1 else t if end.upper else 1 - t) * missed
        return found

    def lift(x: Tensor) -> Tensor:
        parts = [lift_of(x, of, sorted({end.axis for end in of}), len(ends), output) for output, of in enumerate(ends)]
        return torch.stack(parts, dim=-1)

    return Ansatz(lift, distance)


def _values(condition: Condition, x: Tensor, outputs: int) -> Tensor:
    """Evaluate the values that a condition asks for, (B,): what its residual takes off the output."""
    zero = Jet(x.new_zeros(len(x), outputs), x.new_zeros(len(x), outputs, x.shape[1]), x.new_zeros(len(x), outputs, 0))
    return -condition.residual(zero, Side(x, torch.zeros_like(x)))
