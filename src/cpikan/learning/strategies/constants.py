"""Outputs that are constants, taken out of a problem: they are numbers beside the field while its last layer is solved for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.fields.protocol import Jet
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.strategies.first_guess import solve_last_layer
from cpikan.learning.unknowns import network_of, unknowns_of
from cpikan.physics.problem import Condition, Problem, Side, Unknown


def varying(problem: Problem) -> list[int]:
    """List the outputs that are not constants."""
    return [output for output in range(problem.outputs) if output not in problem.constants]


def without_constants(problem: Problem) -> Problem:
    """Pose the same problem with its constant outputs as the first of its unknowns.

    A constant as an output has as many coefficients as the solution, and residuals that hold them at zero: with three of
    them a level takes some 64 times as long.
    """
    keep, constants = varying(problem), list(problem.constants)
    numbers = [f"output {output}" for output in constants]
    rest = [one.name for one in problem.unknowns]

    def residuals(jet: Jet, x: Tensor, unknown: Mapping[str, Tensor]) -> Any:
        values = torch.stack([unknown[name] for name in numbers], dim=-1)
        flat = [part.new_zeros(part.shape[0], len(constants), *part.shape[2:]) for part in (jet.gradient, jet.second)]
        joined = Jet(*(torch.cat(pair, dim=1) for pair in zip(jet, (values, *flat), strict=True)))
        whole = _ordered(joined, keep, constants)
        return problem.residuals(whole, x, {n: unknown[n] for n in rest}) if rest else problem.residuals(whole, x)

    conditions = [replace(one, residual=_with_constants(one, keep, constants)) for one in problem.conditions]
    unknowns = [*(Unknown(name) for name in numbers), *problem.unknowns]
    return replace(
        problem,
        residuals=residuals,
        conditions=conditions,
        outputs=len(keep),
        constants={},
        unknowns=unknowns,
        exact=None,
        energy=None,
    )


def fit_without_constants(run: Runner, make: Callable[[int], nn.Module], points: Points, first: bool) -> float:
    """Solve for the last layer of the field of a run, the constants as numbers.

    ``make`` gives a network of so many outputs with the field's hidden layer. Gives the seconds as ``solve_last_layer`` does.
    """
    problem, field = run.problem, run.iterate.field
    whole = network_of(field)
    keep, constants = varying(problem), list(problem.constants)
    inner = Runner(without_constants(problem), run.budget, run.seed)
    inner.started = run.started
    network: Any = make(len(keep))
    inner.place(network, points)
    start, given, found = whole.output_coefficients(), unknowns_of(field), unknowns_of(inner.iterate.field)
    assert found is not None
    with torch.no_grad():
        network.set_output_coefficients(start[:, keep])
        found[: len(constants)] = start[0, constants]
        if given is not None:
            found[len(constants) :] = given
    took = solve_last_layer(inner, first)
    table = torch.zeros_like(start)
    table[:, keep], table[0, constants] = network.output_coefficients().detach(), found.detach()[: len(constants)]
    whole.set_output_coefficients(table)
    if given is not None:
        with torch.no_grad():
            given.copy_(found[len(constants) :])
    run.count(inner.iterations)
    run.look()
    return took


def _with_constants(condition: Condition, keep: list[int], constants: list[int]) -> Callable[[Jet, Side], Tensor]:
    def residual(jet: Jet, side: Side) -> Tensor:
        partner = None if side.partner is None else _ordered(side.partner, keep, constants)
        return condition.residual(_ordered(jet, keep, constants), replace(side, partner=partner))

    return residual


def _ordered(jet: Jet, keep: list[int], constants: list[int]) -> Jet:
    """Put outputs, those that vary and then constants, in the order of the problem; what follows stays."""
    places = {output: number for number, output in enumerate([*keep, *constants])}
    order = [places[output] for output in range(len(places))] + list(range(len(places), jet.value.shape[1]))
    return Jet(*(part[:, order] for part in jet))
