"""Interfaces: where the subdomains of a partition meet, and the conditions that couple what is on either side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError, unknown_name
from cpikan.fields.protocol import Jet
from cpikan.partition import Partition
from cpikan.physics.evolution import derived, drawn_jet
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Region, inner_parts

INTERFACES = ("xpinn", "cpinn")
Flux = Callable[[Jet, Tensor], Tensor]
_NODES = {1: 1, 2: 16}  # on a face, by dimension; in more dimensions 6 per axis
_INNER = 6


@dataclass(frozen=True)
class Faces:
    """Points on the faces between subdomains across one ``axis``: ``below`` and ``above`` (n, d), a rounding step apart."""

    axis: int
    below: Tensor
    above: Tensor


def faces(
    partition: Partition[float], region: Region, nodes: int | None = None, without: Sequence[tuple[int, float]] = ()
) -> list[Faces]:
    """Place Chebyshev nodes on every face that lies in the region, axis by axis; never on an edge, so that two boxes own each.

    Faces at the places ``without``, (axis, coordinate), are left out.
    """
    d = len(partition.axes)
    count = _NODES.get(d, _INNER) if nodes is None else nodes
    share = 0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)
    found = []
    for axis, pieces in enumerate(partition.axes):
        ends = [(one.lower, *one.cuts, one.upper) for one in partition.axes]
        along = [
            np.concatenate([low + share * (high - low) for low, high in itertools.pairwise(places)]) for places in ends
        ]
        along[axis] = np.array([cut for cut in pieces.cuts if not any(_is_at(axis, cut, one) for one in without)])
        grid = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, d)
        above = grid[region.contains(grid)] if len(grid) else grid
        below = above.copy()
        below[:, axis] = np.nextafter(above[:, axis], -np.inf)
        if len(above):
            found.append(Faces(axis, torch.from_numpy(below), torch.from_numpy(above)))
    return found


class Coupling(NamedTuple):
    """What is equal on both sides of a face: its residual, whether it takes second derivatives, and whether it is a slope."""

    name: str
    residual: Callable[[Jet, Side], Tensor]
    second: bool = False
    slope: bool = False


def with_interfaces(
    problem: Problem, partition: Partition[float], coupling: str, *, flux: Flux | None = None, weight: float = 1.0
) -> Problem:
    """Add to a problem what couples fields of subdomains that do not overlap.

    Values are equal on all faces. ``xpinn`` also asks for equal residuals of the equation (Jagtap and Karniadakis 2020),
    ``cpinn`` for equal fluxes across the face (Jagtap, Kharazmi and Karniadakis 2020): ``flux(jet, x) -> (B, d)``, or the
    slopes of the outputs that the equation bends along that axis. Slopes are asked for with ``xpinn`` as well where the
    equation has second derivatives: equal values and residuals alone leave a kink free, as in u'' = f. Where a break has
    conditions of its own these stand alone. Raises InputError for another coupling, a flux of a wrong shape, and a break that
    is no face.
    """
    if coupling not in INTERFACES:
        raise unknown_name("coupling of subdomains that do not overlap", coupling, INTERFACES)
    _check_breaks(problem, partition)
    found = list(problem.conditions)
    for one in faces(partition, problem.region, without=own_faces(problem)):
        for what in couplings(problem, one.axis, coupling, flux):
            axis = getattr(problem.region, "axes", ("x", "y", "z"))[one.axis]
            name, second = f"{what.name} across {axis}", problem.second if what.second else "none"
            condition = Condition(name, what.residual, at=one.below, across=one.above, weight=weight)
            found.append(replace(condition, second=second))
    return replace(problem, conditions=found)


def bent_outputs(problem: Problem, axis: int) -> list[int]:
    """List the outputs whose slope along an axis has to be continuous: those whose second derivative stands in the equation."""
    return sorted(output for output in derived(problem, axis)[1] if output < problem.outputs)


def couplings(problem: Problem, axis: int, coupling: str, flux: Flux | None = None) -> list[Coupling]:
    """List what a coupling makes equal across an axis."""

    def named(what: str, output: int) -> str:
        return f"{what} of output {output}" if problem.outputs > 1 else what

    found = [Coupling(named("value", o), partial(_value_jump, o)) for o in range(problem.outputs)]
    if coupling == "cpinn" and flux is not None:
        return [*found, Coupling("flux", partial(_flux_jump, flux, axis))]
    what = "slope" if coupling == "xpinn" else "flux"
    found += [Coupling(named(what, o), partial(_slope_jump, o, axis), slope=True) for o in bent_outputs(problem, axis)]
    if coupling == "cpinn":
        return found
    names = list(problem.interior(*drawn_jet(problem)))
    titles = ["residual"] if len(names) == 1 else [f"residual {name!r}" for name in names]
    pairs = zip(titles, names, strict=True)
    return [*found, *(Coupling(title, partial(_residual_jump, problem, name), True) for title, name in pairs)]


def _other(side: Side) -> Jet:
    assert side.partner is not None
    return side.partner


def _value_jump(output: int, jet: Jet, side: Side) -> Tensor:
    return jet.value[..., output] - _other(side).value[..., output]


def _slope_jump(output: int, axis: int, jet: Jet, side: Side) -> Tensor:
    return jet.gradient[..., output, axis] - _other(side).gradient[..., output, axis]


def _residual_jump(problem: Problem, name: str, jet: Jet, side: Side) -> Tensor:
    return problem.interior(jet, side.points)[name] - problem.interior(_other(side), side.points)[name]


def _flux_jump(flux: Flux, axis: int, jet: Jet, side: Side) -> Tensor:
    found = [flux(one, side.points) for one in (jet, _other(side))]
    if found[0].shape != side.points.shape:
        given, wanted = tuple(found[0].shape), tuple(side.points.shape)
        raise InputError(f"flux of shape {given} for points of shape {wanted}: give one number per axis at every point")
    return found[0][..., axis] - found[1][..., axis]


def _check_breaks(problem: Problem, partition: Partition[float]) -> None:
    """Raise InputError for a break of the region inside a subdomain, whose field has no kink."""
    for part, place in inner_parts(problem.region).items():
        cuts = partition.axes[place[0]].cuts
        if not any(_is_at(place[0], cut, place) for cut in cuts):
            raise InputError(
                f"break {part} lies inside a subdomain, and no interface there has the derivatives of either side: put a cut "
                f"there, of those at {[round(cut, 6) for cut in cuts]}"
            )


def own_faces(problem: Problem) -> list[tuple[int, float]]:
    """List the breaks that have conditions of their own."""
    bound = {part for one in problem.conditions for part in one.on or ()}
    return [place for part, place in inner_parts(problem.region).items() if part in bound]


def _is_at(axis: int, cut: float, place: tuple[int, float]) -> bool:
    """Tell whether a cut is at a place, to rounding: that of a break lies one number above it."""
    return axis == place[0] and math.isclose(cut, place[1], rel_tol=1e-12, abs_tol=1e-300)
