"""Energies: the density whose stationary point an equation describes, derived from its residual where there is one.

A residual r = sum (a_i u_i)_i + s(u, x), with a of x alone, is minus the derivative of

    E(u) = integral of  sum a_i u_i^2 / 2 - S(u, x),      S(u, x) = integral of s(t u, x) u dt over 0 < t < 1

(Vainberg 1964). A sign is given to it so that its gradients count as positive.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.physics.leading import bare, check_leading, drawn_jet, leading, sample_points
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.quadrature import rule

Density = Callable[[Jet, Tensor], Tensor]
_ALONG = 8  # nodes between 0 and u: exact for a source of degree 14 in u
_SAME = 1e-8


def energy_of(problem: Problem) -> Density:
    """Give the problem's energy density, or derive it from its residual; of jets without second derivatives.

    Raises InputError for several equations or outputs, for an equation that is no derivative of an energy (as one with a
    first derivative in time), and for conditions that an energy alone does not hold.
    """
    if problem.energy is not None:
        return problem.energy
    what = f"energy of {problem.name}"
    if problem.outputs != 1 or problem.unknowns or problem.constants:
        raise InputError(f"{what}: it has several outputs or unknown coefficients, give energy= to the problem")
    check_leading(problem, "energy")
    sign = _sign(problem, what)
    for condition in problem.conditions:
        _check_condition(problem, condition)
    nodes, weights = (torch.from_numpy(part).flatten() for part in rule("gauss-legendre", _ALONG))

    known = WeakTensorKeyDictionary()  # factors at points that come again, while these live

    def density(jet: Jet, x: Tensor) -> Tensor:
        if x not in known:
            known[x] = sign * leading(problem, x).value[:, 0, 0]
        factors = known[x]
        value = jet.value
        found = 0.5 * (factors * jet.gradient[:, 0].square()).sum(dim=-1)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            there = Jet(0.5 * (node + 1) * value, torch.zeros_like(jet.gradient), jet.second)
            (source,) = problem.interior(bare(there, problem), x).values()
            found = found - 0.5 * weight * sign * source * value[:, 0]
        return found

    return density


def _sign(problem: Problem, what: str) -> float:
    """Find the sign of the leading factors; raises InputError where the equation is no derivative of an energy."""
    x = sample_points(problem)
    factors = leading(problem, x)
    if factors.value.shape[1] != 1 or not bool(factors.value.any()):
        raise InputError(f"{what}: it is not one equation of second order, give energy= to the problem")
    for seed in (1, 2):
        jet = bare(drawn_jet(problem, x, seed), problem)
        with torch.enable_grad():
            gradient = jet.gradient.clone().requires_grad_()
            (found,) = problem.interior(jet._replace(gradient=gradient), x).values()
            by = torch.zeros_like(gradient)
            if found.requires_grad:
                part = torch.autograd.grad(found.sum(), gradient, allow_unused=True)[0]
                by = by if part is None else part
        if not torch.allclose(
            by[:, 0], factors.slope[:, 0, 0], rtol=_SAME, atol=_SAME * float(factors.value.abs().max())
        ):
            raise InputError(
                f"{what}: its first derivatives make it no derivative of an energy (as in time, or with a flow), use "
                "--loss-mode strong or weak"
            )
    return 1.0 if float(factors.value.sum()) > 0 else -1.0


def _check_condition(problem: Problem, condition: Condition) -> None:
    """Raise InputError for slopes that are given: an energy without terms of the boundary has slopes of zero."""
    if condition.at is not None or condition.period is not None:
        return
    x = sample_points(problem)
    side = Side(x, torch.ones_like(x))
    jets = [drawn_jet(problem, x, seed) for seed in (None, 4)]
    flat = jets[1]._replace(gradient=torch.zeros_like(jets[1].gradient))
    zero, found, without = (condition.residual(jet, side) for jet in (jets[0], jets[1], flat))
    if not torch.equal(found, without) and bool((zero.abs() > 0).any() | (without.abs() > 0).any()):
        raise InputError(
            f"energy of {problem.name}: condition {condition.name!r} gives slopes, which need a term of the boundary; give "
            "energy= to the problem, or use --loss-mode weak"
        )
