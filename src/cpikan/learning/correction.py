"""A correction: what is missing from a solution that stays as it is, as the problem of a network on top of it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cpikan.errors import PATH, InputError, check_type
from cpikan.fields.constrained import ConstrainedField
from cpikan.fields.mapped import MappedCPIKAN
from cpikan.fields.stacked import Correction
from cpikan.learning.iterate import Iterate
from cpikan.learning.solution import Solution, load_solution
from cpikan.learning.unknowns import is_linear, output_vector, set_output_vector, zero_output
from cpikan.physics.exact_conditions import posed_behind, with_exact_conditions
from cpikan.physics.problem import Problem

_LEAST = 1e-12  # scale of a correction, of the size of the solution: less is rounding
_TRIED = 500  # points where that size is looked at


def check_below(given: object) -> None:
    """Raise InputError for what is neither a solution nor the path of one."""
    check_type("correct", given, (Solution, *PATH), "a Solution, or the path that one was saved by")


def corrected(given: Solution | Path | str, problem: Problem) -> tuple[Problem, Correction]:
    """Pose a problem for v in u = below + s v, where ``below`` is a copy of a solution's field and does not train.

    Values that the solution holds by its form are held by the same form: u = lift + distance (network + s v). The scale s is
    the solution's held-out residual relative to that of u = 0, times its root mean square, so that v is of the size of 1
    where the equation is of low order. Raises InputError for a solution of another problem, one behind functions of the
    coordinates (slopes or periods held), and unknown coefficients.
    """
    solution = given if isinstance(given, Solution) else load_solution(given, problem)
    if solution.problem.name != problem.name:
        raise InputError(
            f"a correction of {problem.name} on top of a solution of {solution.problem.name}: give one of the same problem, or "
            "start from it"
        )
    if problem.unknowns or problem.constants:
        raise InputError(
            f"{problem.name} has unknown coefficients, which are no part of a correction: start from it instead"
        )
    field = solution.field
    form = field.ansatz if isinstance(field, ConstrainedField) else None
    network = field.network if isinstance(field, ConstrainedField) else field
    if isinstance(network, MappedCPIKAN):
        raise InputError(
            f"the solution of {problem.name} holds slopes, periods or symmetries by functions of the coordinates, on top of "
            "which there is no correction: give one that was solved without constraints exact or symmetric"
        )
    below, scale = deepcopy(network), _scale(solution)
    if form is None:
        found = Correction.of(below, scale, None)
        return posed_behind(problem, found), found
    posed, made = with_exact_conditions(
        problem, lambda _: Correction.of(below, scale, form), embedded=form.embedded, free=form.free
    )
    assert isinstance(made, Correction)  # what the solution holds can be held
    return posed, made


def keep_below(found: Iterate, network: nn.Module) -> None:
    """Let a correction vanish where the held-out residual of the whole is smaller without it."""
    if not is_linear(network):
        return
    cost, coefficients = found.heldout_cost(), output_vector(network)
    zero_output(network)
    if found.heldout_cost() > cost:
        set_output_vector(network, coefficients)


def _scale(solution: Solution) -> float:
    """Estimate the error of a solution: its relative residual times its size."""
    problem = solution.problem
    unit = np.random.default_rng(4).random((_TRIED, problem.dimension))
    values = solution(torch.from_numpy(problem.region.inside(unit, False)))
    size = float(values.square().mean().sqrt()) or 1.0
    relative = solution.metrics["heldout_relative"]
    return size * min(1.0, max(_LEAST, 1.0 if relative is None else relative))
