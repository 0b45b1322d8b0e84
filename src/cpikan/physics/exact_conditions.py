"""Conditions that hold exactly: those that a form of the solution satisfies whatever the network is, taken out of a problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from cpikan.errors import InputError
from cpikan.fields.constrained import Ansatz, ConstrainedField
from cpikan.fields.mapped import MappedCPIKAN
from cpikan.fields.protocol import Jet
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.physics.bound_condition import Bound, bound, has_slopes, side_points
from cpikan.physics.box_form import Line, box_ansatz
from cpikan.physics.distances import Distance, check_distance, distance_to
from cpikan.physics.outline import Outline, outline_of
from cpikan.physics.parity import with_parity
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.region_form import region_ansatz
from cpikan.physics.regions import Box

_HELD = 1e-8  # of the size of what is asked for: what misses it by more is not held
_ABOUT = 1e-2  # the same of values alone: those handed on from a window of time differ a little from the walls' in its corners
_TRIED = 12  # points per part where it is tried


@dataclass(frozen=True)
class _Form:
    """A form of solutions, and the numbers of the conditions that it is made for."""

    ansatz: Ansatz
    held: frozenset[int]


def with_exact_conditions(
    problem: Problem,
    through: Callable[[Ansatz], Ansatz] | None = None,
    *,
    embedded: bool = False,
    symmetric: bool = False,
    free: Sequence[int] = (),
) -> tuple[Problem, Ansatz | None]:
    """Pose a problem for v in u = lift + distance v, where conditions hold whatever v is; those are left out, others stay.

    On boxes (`box_ansatz`): values, slopes (Neumann, Robin), both at the start of time, and periods; on outlines of the plane
    (`region_ansatz`): values and slopes on their parts. Whether a condition is of that kind is tried on jets drawn at random,
    and whether the form holds it on networks drawn at random: of values that differ at a corner, not both are held. The
    problem itself and None where none is. Without ``embedded`` values are taken alone: v is any network of the coordinates.
    With ``symmetric`` what is even or odd is so by the form too (`with_parity`), and None is given where nothing is.
    Conditions at the ends of the axes ``free`` of a box are left.
    ``through`` may exchange the ansatz for one of the same distance, as a lift by series; without it data that torch cannot
    differentiate are not held. Raises InputError for a distance of a
    region of yours that vanishes inside.
    """
    whole, left = problem, frozenset(range(len(problem.conditions)))
    if free and isinstance(problem.region, Box):
        problem, left = _without(problem, problem.region, free)
    if through is None:
        left = frozenset(number for number in left if _has_slopes(problem, number))
    while left:
        form = _form(problem, left, embedded)
        if form is not None and symmetric:
            even = with_parity(problem, form.ansatz)
            form = None if even is None else replace(form, ansatz=even)
        if form is None:
            break
        missed = _missed(problem, form, _HELD if embedded else _ABOUT)
        if not missed:
            ansatz = form.ansatz if through is None else through(form.ansatz)
            ansatz = replace(ansatz, embedded=embedded, free=tuple(free))
            return posed_behind(problem, ansatz, form.held), ansatz
        left = form.held - missed
    return whole, None


def _has_slopes(problem: Problem, number: int) -> bool:
    """Tell whether nothing keeps a condition from being held by a lift of its data."""
    found = bound(problem, problem.conditions[number], str(number))
    return found is None or has_slopes(problem, found)


def _without(problem: Problem, region: Box, free: Sequence[int]) -> tuple[Problem, frozenset[int]]:
    """Give a problem whose conditions are each at ends of the axes ``free`` or of none, and the numbers of the latter ones."""
    conditions: list[Condition] = []
    left = set()
    for condition in problem.conditions:
        parts = () if condition.at is not None else _parts(problem, condition)
        there = tuple(part for part in parts if part not in region.inner and region.side(part)[0] in free)
        elsewhere = tuple(part for part in parts if part not in there)
        if not there or elsewhere:
            left.add(len(conditions))
            conditions.append(replace(condition, on=elsewhere) if there else condition)
        if there:
            conditions.append(replace(condition, on=there))
    return replace(problem, conditions=conditions), frozenset(left)


def _form(problem: Problem, among: frozenset[int], embedded: bool) -> _Form | None:
    """Make the form that holds as many of some conditions as there is one for; None where it holds none."""
    region = problem.region
    if problem.unknowns or problem.constants or getattr(region, "breaks", ()):
        return None
    if isinstance(region, Box):
        return _box_form(problem, region, among, embedded)
    if hasattr(region, "distance"):
        return _own_form(problem, among)
    try:
        outline = outline_of(region)
    except InputError:
        return None
    return _region_form(problem, outline, among, embedded)


def _box_form(problem: Problem, region: Box, among: frozenset[int], embedded: bool) -> _Form | None:
    lines = [[Line() for _ in region.axes] for _ in range(problem.outputs)]
    for number in sorted(among):
        condition = problem.conditions[number]
        if condition.period is not None:
            _take_period(problem, condition, number, lines)
            continue
        found = bound(problem, condition, str(number))
        if found is None:
            continue
        places = [region.side(part) for part in _parts(problem, condition)]
        kept = [(line.slopes if found.slope else line.values) for line in lines[found.output]]
        if not any(end in kept[axis] for axis, end in places):
            for axis, end in places:
                kept[axis][end] = found
    for axis in range(len(region.axes)):
        together = [line[axis] for line in lines]
        alike = len({one.kind for one in together}) == 1
        for one in together:
            _drop_half(one, alike, embedded)
    held = frozenset(
        int(name)
        for line in lines
        for one in line
        for name in (*(b.name for b in (*one.values.values(), *one.slopes.values())), *one.periods)
    )
    held = _whole(problem, lines, held)
    return _Form(box_ansatz(region, lines), held) if held else None


def _take_period(problem: Problem, condition: Condition, number: int, lines: Sequence[Sequence[Line]]) -> None:
    """Note a period of values or slopes of one output along an axis."""
    assert isinstance(problem.region, Box)
    axis = problem.region.axes.index(condition.period or "")
    for output in range(problem.outputs):
        if _is_period(problem, condition, axis, output):
            lines[output][axis].periods.append(str(number))


def _is_period(problem: Problem, condition: Condition, axis: int, output: int) -> bool:
    """Tell whether a condition is a difference of values, or of slopes along the axis, of one output at both ends."""
    generator = torch.Generator().manual_seed(5)
    d, outputs = problem.dimension, problem.outputs

    def drawn() -> Jet:
        return Jet(*(torch.randn(4, outputs, *t, generator=generator, dtype=torch.float64) for t in ((), (d,), (0,))))

    low, high = drawn(), drawn()
    points = torch.zeros(4, d, dtype=torch.float64)
    found = condition.residual(low, Side(points, points, high))
    values = low.value[:, output] - high.value[:, output]
    slopes = low.gradient[:, output, axis] - high.gradient[:, output, axis]
    return any(torch.allclose(sign * found, one) for one in (values, slopes) for sign in (1, -1))


def _drop_half(line: Line, alike: bool, embedded: bool) -> None:
    """Leave out what needs a point map that others do not share, and periods of values or of slopes alone."""
    if len(line.periods) != 2 or not (alike and embedded):
        line.periods.clear()
    if line.periods and (line.values or line.slopes):
        line.periods.clear()
    if not embedded:
        line.slopes.clear()
    elif not alike:
        for end in line.free:
            del line.slopes[end]


def _whole(problem: Problem, lines: Sequence[Sequence[Line]], held: frozenset[int]) -> frozenset[int]:
    """Keep conditions whose parts are all held."""
    found = set()
    for number in held:
        condition = problem.conditions[number]
        ends = sum(
            one.name == str(number)
            for line in lines
            for each in line
            for one in (*each.values.values(), *each.slopes.values())
        )
        if condition.period is not None or ends == len(_parts(problem, condition)):
            found.add(number)
    return frozenset(found)


def _region_form(problem: Problem, outline: Outline, among: frozenset[int], embedded: bool) -> _Form | None:
    bounds: list[list[tuple[str, Bound]]] = [[] for _ in range(problem.outputs)]
    held = set()
    for number in sorted(among):
        found = bound(problem, problem.conditions[number], str(number))
        if found is None or (found.slope and (problem.outputs > 1 or not embedded)):
            continue
        parts = _parts(problem, problem.conditions[number])
        if not {part for part, _ in bounds[found.output]} & set(parts):
            bounds[found.output] += [(part, found) for part in parts]
            held.add(number)
    if not held:
        return None
    ansatz, free = region_ansatz(outline, bounds)
    if not free:
        return _region_form(problem, outline, among, False)
    distance = distance_to(outline)
    _check(problem, distance)
    return _Form(ansatz, frozenset(held))


def _own_form(problem: Problem, among: frozenset[int]) -> _Form | None:
    """Hold values on parts of a region of the user's, which gives ``distance(parts)``: points (B, d) to (B,)."""
    region: Any = problem.region
    for number in sorted(among):
        found = bound(problem, problem.conditions[number], str(number))
        if found is not None and not found.slope and problem.outputs == 1:
            distance = region.distance(_parts(problem, problem.conditions[number]))
            points, _ = side_points(problem, problem.conditions[number], _TRIED)
            check_distance(distance, _inside(problem), points, problem.name)
            return _Form(_own_ansatz(found, distance), frozenset([number]))
    return None


def _own_ansatz(given: Bound, distance: Distance) -> Ansatz:
    """Take what is given where a point is, with a distance of the user's."""
    return Ansatz(lambda x: given.value(x, torch.zeros_like(x))[:, None], lambda x: distance(x)[:, None])


def _check(problem: Problem, distance: Distance) -> None:
    units = np.random.default_rng(1).random((_TRIED, problem.dimension - 1))
    on = np.concatenate([problem.region.on(part, units, False)[0] for part in problem.region.walls])
    check_distance(distance, _inside(problem), torch.from_numpy(on), problem.name)


def _inside(problem: Problem) -> Tensor:
    unit = np.random.default_rng(2).random((200, problem.dimension))
    return torch.from_numpy(problem.region.inside(unit, False))


def _missed(problem: Problem, form: _Form, least: float) -> frozenset[int]:
    """Find the conditions that the form does not hold for some network, or whose data are not finite where it needs them."""
    size = len(form.ansatz.point_map.lower) if form.ansatz.point_map is not None else problem.dimension
    box, widths = (problem.region.lower, problem.region.upper), [size, 3, problem.outputs]
    network = (
        ScaledCPIKAN(widths, 2, box, start=Start(9))
        if form.ansatz.point_map is None
        else MappedCPIKAN(widths, 2, form.ansatz.point_map, start=Start(9))
    )
    field, found = ConstrainedField(network, form.ansatz), set()
    with torch.no_grad():
        if not all(bool(part.isfinite().all()) for part in field.jet(_inside(problem)[:50], problem.second)):
            return form.held
        for number in form.held:
            condition = problem.conditions[number]
            points, normals = side_points(problem, condition, _TRIED)
            jet, partner = field.jet(points, "none"), None
            if condition.period is not None:
                assert isinstance(problem.region, Box)
                axis = problem.region.axes.index(condition.period)
                there = points.clone()
                there[:, axis] = problem.region.upper[axis]
                partner = field.jet(there, "none")
            residual = condition.residual(jet, Side(points, normals, partner))
            scale = 1 + float(jet.value.abs().max()) + float(jet.gradient.abs().max())
            if not float(residual.abs().max()) <= least * scale:
                found.add(number)
    return frozenset(found)


def _parts(problem: Problem, condition: Condition) -> Sequence[str]:
    return problem.region.walls if condition.on is None else condition.on


def posed_behind(problem: Problem, ansatz: Ansatz, held: frozenset[int] = frozenset()) -> Problem:
    """Pose a problem for v in u = lift + distance v, without the conditions whose numbers are ``held``."""

    def jet_of(jet: Jet, x: Tensor) -> Jet:
        second = "none" if jet.second.ndim == 3 and jet.second.shape[-1] == 0 else problem.second
        return ansatz.jet(jet, x, second)

    def residuals(jet: Jet, x: Tensor, *unknown: Any) -> Any:
        return problem.residuals(jet_of(jet, x), x, *unknown)

    def bound_to(condition: Condition) -> Condition:
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
    return replace(
        problem,
        residuals=residuals,
        conditions=[bound_to(one) for number, one in enumerate(problem.conditions) if number not in held],
        exact=None,
        energy=None if energy is None else lambda jet, x: energy(jet_of(jet, x), x),
        form=None if problem.form is None else problem.form.behind(jet_of),
    )
