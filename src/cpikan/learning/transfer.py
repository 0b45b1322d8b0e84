"""Transfer: the network of a solution, as the start of another problem's."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from cpikan.errors import PATH, InputError, check_type
from cpikan.fields.constrained import Ansatz, ConstrainedField
from cpikan.fields.embedded import EmbeddedField
from cpikan.fields.embeddings import WaveEmbedding
from cpikan.fields.layered import LayeredField
from cpikan.fields.mapped import MappedCPIKAN
from cpikan.fields.scaling import AffineScaling
from cpikan.learning.solution import Solution, load_solution
from cpikan.physics.problem import Problem
from cpikan.physics.waves import Wave

Given = Solution | Path | str


def check_start(given: object) -> None:
    """Raise InputError for what is neither a solution nor the path of one."""
    check_type("start_from", given, (Solution, *PATH), "a Solution, or the path that one was saved by")


def transferred(given: Given, problem: Problem, ansatz: Ansatz | None) -> LayeredField:
    """Copy the network of a solution for a problem: the same parameters, on the box that holds the new region.

    What the network says in scaled coordinates stays, so that its box lies to the new region as the old one to the old
    region. Behind an ``ansatz`` it has to come from behind one. Raises InputError for a solution that is no single layered
    network, one of other coordinates or outputs, and one that holds its conditions in another way.
    """
    solution = given if isinstance(given, Solution) else load_solution(given)
    source, what = solution.field, f"the solution of {solution.problem.name}"
    held = isinstance(source, ConstrainedField)
    network = source.network if isinstance(source, ConstrainedField) else source
    if not isinstance(network, LayeredField):
        raise InputError(
            f"{what} is a {type(network).__name__}, which is no single network: start from one, as recipe soap finds it"
        )
    if held and ansatz is None:
        raise InputError(
            f"{what} holds values by its form, and this solve of {problem.name} does not: give recipe trained, or "
            "constraints exact"
        )
    if ansatz is not None and not held:
        raise InputError(
            f"{what} does not hold values by its form, and this solve of {problem.name} does: give constraints penalty"
        )
    left, free = (
        source.ansatz.free if isinstance(source, ConstrainedField) else (),
        () if ansatz is None else ansatz.free,
    )
    if left != free:
        raise InputError(
            f"{what} leaves the ends of {len(left)} axes to its residuals, and this solve of {problem.name} those of "
            f"{len(free)}: solve both with constraints exact, or both without"
        )
    before = source.ansatz.parity if isinstance(source, ConstrainedField) else ()
    if before != (() if ansatz is None else ansatz.parity):
        raise InputError(
            f"{what} and this solve of {problem.name} are not even or odd alike by their forms: give constraints exact in both"
        )
    point_map = None if ansatz is None else ansatz.point_map
    plain = network.bare() if isinstance(network, MappedCPIKAN) else network
    inputs = problem.dimension if point_map is None else len(point_map.lower)
    if (plain.dimension, plain.outputs) != (inputs, problem.outputs):
        raise InputError(
            f"{what} has {plain.dimension} inputs and {plain.outputs} outputs, {problem.name} has {inputs} and "
            f"{problem.outputs}: start from a solution with as many"
        )
    if point_map is not None:
        return MappedCPIKAN.around(plain, point_map)
    made = deepcopy(plain)
    made.scaling = AffineScaling(*_box(plain, solution.problem, problem))
    return made


def waves_of(given: Solution | Path | str) -> tuple[Wave, ...]:
    """Give the waves that the network of a solution takes beside the coordinates."""
    source = (given if isinstance(given, Solution) else load_solution(given)).field
    network = source.network if isinstance(source, ConstrainedField) else source
    embedding = network.embedding if isinstance(network, EmbeddedField) else None
    return embedding.waves if isinstance(embedding, WaveEmbedding) else ()


def _box(network: LayeredField, before: Problem, problem: Problem) -> tuple[Tensor, Tensor]:
    """Move the box of a network as its region moves."""
    low, high = network.scaling.lower, network.scaling.upper
    old = [_row(bound) for bound in (before.region.lower, before.region.upper)]
    new = [_row(bound) for bound in (problem.region.lower, problem.region.upper)]
    shares = [(bound - old[0]) / (old[1] - old[0]) for bound in (low, high)]
    lower, upper = (new[0] * (1 - share) + new[1] * share for share in shares)  # exact at both ends of a region
    return lower, upper


def _row(bound: object) -> Tensor:
    return torch.as_tensor(bound, dtype=torch.float64)
