"""The problem linearised about a field: the error that its residuals stand for, and how far they reach.

A field u leaves residuals r; J e = -r, with J the linearised equation and conditions, gives the error e to first order, at
points and in polynomials that the solve did not use. max |e| / |J e| says how large an error may be that so small a residual
hides; where it has no bound, other functions satisfy the problem as well.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.learning.iterate import Iterate
from cpikan.learning.objective import Objective, PointSet, Term, half_squares
from cpikan.learning.panel import SOLE_JUDGE, Panel
from cpikan.learning.samplers.points import Points, unit_points
from cpikan.learning.trust.polynomials import BrokenPolynomials, Polynomials, pieces_of, polynomials_on
from cpikan.learning.trust.ties import tied
from cpikan.learning.unknowns import outputs_of
from cpikan.learning.violations import zero_cost
from cpikan.physics.linearise import contract, pullback
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box

FUNCTIONS = {1: 400}  # columns by dimension, shared by the outputs that vary
_MOST = 480
_ROWS = 2.5  # per column
_SEED = 104_729  # apart from those of fitted and held-out points
_MOST_POINTS = 4000  # of a term
_DAMPING = 1e-13  # relative to columns of unit length
_BLOCK, _ITERATIONS = 6, 12
Basis = Polynomials | BrokenPolynomials


@dataclass(frozen=True)
class Linearised:
    """Weighted residuals (R,) and their Jacobian (R, C) by the corrections of all outputs.

    ``values`` (n, outputs, C) are the corrections at the test points, ``rows`` the rows of each term, ``shares`` the share
    of its points that they stand for, ``outputs`` (C,) the output that each column corrects, ``scale`` the size of what the
    residuals are made of, and ``unseen`` the share of the field (the worst output) that these functions cannot show. Of
    several processes each has the rows of its own points, and ``panel`` puts together what goes by all.
    """

    residuals: Tensor
    jacobian: Tensor
    values: Tensor
    rows: dict[str, slice]
    shares: dict[str, float]
    outputs: Tensor
    scale: float
    unseen: float
    panel: Panel = SOLE_JUDGE

    @property
    def finite(self) -> bool:
        """Tell whether residuals and Jacobian are numbers."""
        here = torch.isfinite(self.residuals).all() and torch.isfinite(self.jacobian).all()
        return not bool(self.panel.largest((~torch.as_tensor(here)).double()[None]))

    def lighter(self, data: Collection[str]) -> Linearised:
        """Weigh measured values as their residuals deserve: no more than what else is missed, as maximum likelihood asks."""
        if not data:
            return self
        other = self._norm([name for name in self.rows if name not in data])
        weight = torch.ones_like(self.residuals)
        for name in data:
            mine = self._norm([name])
            weight[self.rows[name]] = min(1.0, float(other / mine)) if mine > 0 else 1.0
        return replace(self, residuals=weight * self.residuals, jacobian=weight[:, None] * self.jacobian)

    def relative(self, leaving_out: Collection[str] = ()) -> float:
        """Compute the residual relative to what it is made of, without some terms."""
        kept = [name for name in self.rows if name not in leaving_out]
        return float(self._norm(kept)) / self.scale if self.scale > 0 else 0.0

    def _norm(self, names: Collection[str]) -> Tensor:
        return self.panel.norm(torch.cat([self.residuals[self.rows[name]] for name in names]))


class Reach(NamedTuple):
    """What a residual may hide: the estimated ``error`` (n, outputs) at the test points; the most that a correction of
    mean square 1 (each output in units of ``sizes``) exceeds its weighted residual, and that correction (n, outputs) in
    such units."""

    error: Tensor
    amplification: float
    weakest: Tensor


def fixed_outputs(problem: Problem, field: Any) -> list[int]:
    """List the outputs of the field's jet that do not vary: those that stand for coefficients, and unknowns."""
    return sorted({*problem.constants, *range(problem.outputs, outputs_of(field))})


def linearised(problem: Problem, iterate: Iterate, test: Tensor) -> Linearised:
    """Linearise equation and conditions about the field at points of their own, of which a process takes its share."""
    field, outputs, fixed = iterate.field, outputs_of(iterate.field), fixed_outputs(problem, iterate.field)
    functions = FUNCTIONS.get(problem.dimension, _MOST) // (outputs - len(fixed))
    basis = polynomials_on(problem.region, functions)
    keep = torch.tensor([o not in fixed or k == 0 for k in range(len(basis)) for o in range(outputs)])
    objective, shares = _at_points(problem, iterate.heldout, len(basis))
    panel = iterate.panel
    own = panel.own(objective)
    terms = panel.agreed(lambda: [_linearised(field, term, own, basis, keep) for term in own.terms])
    lengths = {term.name: len(residual) for term, (residual, _, _) in zip(own.terms, terms, strict=True)}
    rows, start = {}, 0
    for term in objective.terms:
        rows[term.name], start = slice(start, start + lengths.get(term.name, 0)), start + lengths.get(term.name, 0)
    value = basis.jet(test, "none").value
    unseen = _unseen(field, basis, objective.sets["equation"].points, test, value)
    values = torch.einsum("nk,op->nokp", value, torch.eye(outputs, dtype=value.dtype)).flatten(2)[..., keep]
    contributed = panel.total(torch.tensor([sum(size for _, _, size in terms)], dtype=torch.float64))
    made_of = max(zero_cost(field, objective, panel), float(contributed))
    return Linearised(
        torch.cat([value.new_zeros(0), *(residual for residual, _, _ in terms)]),
        torch.cat([value.new_zeros(0, int(keep.sum())), *(jacobian for _, jacobian, _ in terms)]),
        values,
        rows,
        shares,
        torch.arange(outputs).repeat(len(basis))[keep],
        (2 * made_of) ** 0.5,
        max(unseen[o] for o in range(outputs) if o not in fixed),
        panel,
    )


class Factored(NamedTuple):
    """R (C, C) and Q'(-r) (C,) of the Jacobian with columns in ``order``, each divided by its ``length``."""

    triangle: Tensor
    right: Tensor
    order: Tensor
    length: Tensor


def factored(system: Linearised, fixed: Collection[int]) -> Factored:
    """Factor the Jacobian by QR, the columns of the outputs ``fixed`` last; a trace of damping keeps R regular."""
    order = torch.argsort(torch.tensor([int(o) in fixed for o in system.outputs]).int(), stable=True)
    jacobian = system.jacobian[:, order]
    length = system.panel.norm(jacobian)
    length = torch.where(length > 0, length, torch.ones_like(length))
    stacked = torch.cat([jacobian / length, -system.residuals[:, None]], dim=1)
    columns = len(order)
    below = torch.cat([_DAMPING * torch.eye(columns, dtype=length.dtype), length.new_zeros(columns, 1)], dim=1)
    damped = system.panel.alone or system.panel.ranks.rank == 0
    triangle = system.panel.triangle(torch.cat([stacked, below]) if damped else stacked)
    return Factored(triangle[:columns, :columns], triangle[:columns, columns], order, length)


def reach(system: Linearised, factors: Factored, sizes: Tensor) -> Reach:
    """Estimate the error, and find the correction that the residuals notice least; ``sizes`` (outputs,) of the field."""
    triangle, right, order, length = factors
    step = torch.linalg.solve_triangular(triangle, right[:, None], upper=True).squeeze(1)
    values = system.values[..., order] / length
    scaled = values / (sizes[:, None] * len(values) ** 0.5)
    weakest, amplification = _weakest(triangle, scaled.flatten(0, 1))
    return Reach(values @ step, amplification, values @ weakest / sizes)


def _weakest(triangle: Tensor, values: Tensor) -> tuple[Tensor, float]:
    """Find the largest singular value of V R^-1 by iteration on a block, and R^-1 times its right vector."""
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(len(triangle), _BLOCK, generator=generator, dtype=triangle.dtype)
    sizes = block.new_zeros(_BLOCK)
    for _ in range(_ITERATIONS):
        block = torch.linalg.qr(block)[0]
        image = values @ torch.linalg.solve_triangular(triangle, block, upper=True)
        block = torch.linalg.solve_triangular(triangle.mT, values.mT @ image, upper=False)
        sizes = image.norm(dim=0)
    # the block is nearly sorted: its first vector has been drawn to the largest
    first = torch.linalg.qr(block)[0][:, int(sizes.argmax())]
    direction = torch.linalg.solve_triangular(triangle, first[:, None], upper=True).squeeze(1)
    return direction, float((values @ direction).norm())


def _at_points(problem: Problem, heldout: Objective, functions: int) -> tuple[Objective, dict[str, float]]:
    """Place the terms at as many points as so many functions need; of measured data the fitted part, and its share."""
    interior = int(_ROWS * functions)
    per_side = {1: 1.0, 2: 3.0 * interior**0.5}.get(problem.dimension, 0.5 * interior ** (2 / 3))
    sets, _ = Points(interior, int(len(problem.region.parts) * per_side), "chebyshev", _SEED).init(problem)
    if isinstance(problem.region, Box) and problem.region.breaks:
        sets = {**sets, "equation": PointSet(_in_pieces(problem.region, interior))}
    kept = {term.name: _thinned(sets[term.name]) for term in heldout.terms}
    for name, at in kept.items():
        heldout = heldout.replace_points(name, at)
    shares = {name: len(at.points) / len(sets[name].points) for name, at in kept.items()}
    found = tied(problem, heldout, max(1, int(per_side)))
    return found, {term.name: shares.get(term.name, 1.0) for term in found.terms}


def _in_pieces(region: Box, count: int) -> Tensor:
    """Place points (n, d) as dense towards breaks as towards walls."""
    pieces = pieces_of(region)
    unit = unit_points(-(-count // len(pieces)), len(region.lower), "chebyshev", _SEED)
    return torch.from_numpy(np.concatenate([piece.inside(unit) for piece in pieces]))


def _thinned(at: PointSet) -> PointSet:
    """Keep an even choice of very many points, such as measured ones."""
    every = -(-len(at.points) // _MOST_POINTS) if at.mix is None else 1
    return PointSet._make(None if part is None else part[::every] for part in at)


def _unseen(field: Any, basis: Basis, fitted: Tensor, test: Tensor, value: Tensor) -> list[float]:
    """Fit the field by the basis at points, and find the share that is missed at the test points, by output."""
    with torch.no_grad():
        here, there = (field.jet(x, "none").value for x in (fitted, test))
    known = basis.jet(fitted, "none").value
    below = 1e-8 * torch.eye(len(basis), dtype=known.dtype) * len(fitted)
    factor = torch.linalg.cholesky(known.mT @ known + below)
    missed = there - value @ torch.cholesky_solve(known.mT @ here, factor)
    return (missed.norm(dim=0) / there.norm(dim=0).clamp_min(1e-300)).tolist()


def _linearised(
    field: Any, term: Term, objective: Objective, basis: Basis, keep: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Linearise a term: weighted residuals, rows, and half the squares of what the field's derivatives contribute."""
    at, weight = objective.sets[term.name], objective.weights[term.name]
    places = [x for x in (at.points, at.partner) if x is not None]
    jets, bases = [_leaves(field, x, term) for x in places], [basis.jet(x, term.second) for x in places]
    with torch.enable_grad():
        found = term.pointwise(jets[0], at, jets[1] if len(jets) > 1 else None)
    residuals, rows, made_of = [], [], 0.0
    pushes = [pullback(value, jets) for value in found]
    slopes = at.slopes([contract(bases, push)[:, keep] for push in pushes])
    lefts = at.assembled([value.detach() for value in found])
    for left, row, push in zip(lefts, slopes, pushes, strict=True):
        # no correction has to do with it, as with the slopes of a coefficient: its size is enough
        if not bool(row.any()):
            row, left = row[:1], left.norm()[None]
        rows.append(row)
        residuals.append(left)
        streams = [pair for jet, slope in zip(jets, push, strict=True) for pair in zip(jet, slope, strict=True)]
        parts = [(part * slope).abs().flatten(1).sum(1) for part, slope in streams]
        size = at._replace(shift=None, mix=None if at.mix is None else at.mix.abs()).assembled(
            [sum(parts[1:], parts[0])]
        )[0]
        made_of += float(half_squares(weight * size).detach())
    return weight * torch.cat(residuals), weight * torch.cat(rows), made_of


def _leaves(field: Any, x: Tensor, term: Term) -> Jet:
    with torch.no_grad():
        jet = field.jet(x, term.second)
    return Jet(*(part.clone().requires_grad_() for part in jet))
