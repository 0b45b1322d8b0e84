"""Objective: the cost of a field, from terms at point sets with weights, with its gradients and its linear system."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.learning.linearise_term import has_tape as has_tape
from cpikan.learning.linearise_term import linearise_any as linearise_any
from cpikan.learning.linearise_term import linearise_term as linearise_term
from cpikan.learning.linearise_term import make_tapes as make_tapes
from cpikan.learning.term import PointSet as PointSet
from cpikan.learning.term import Term as Term
from cpikan.physics.form import Form
from cpikan.physics.problem import Condition, Problem, Side

Watch = Callable[[float], None]


class LinearSystem(NamedTuple):
    """Weighted residuals (R,) and their Jacobian (R, P)."""

    residuals: Float[Tensor, " r"]
    jacobian: Float[Tensor, "r p"]

    @property
    def cost(self) -> Float[Tensor, ""]:
        """Compute the cost of the residuals, half their sum of squares, ()."""
        return half_squares(self.residuals)


def half_squares(residuals: Float[Tensor, " r"]) -> Float[Tensor, ""]:
    """Give the cost of residuals: half the sum of their squares."""
    return 0.5 * residuals.square().sum()


class Place(Protocol):
    """What an objective is where a field is, for some of the field's parameters."""

    def residuals(self, field: nn.Module) -> Float[Tensor, " r"]: ...

    def cost(self, field: nn.Module) -> Float[Tensor, ""]: ...

    def linearise(self, field: nn.Module, subset: Literal["all", "output"] = "all") -> LinearSystem: ...

    def look(self, operations: float | int = 0) -> None: ...


@dataclass(frozen=True)
class Objective:
    """Terms, and by their names the points they are taken at and the weights of their residuals.

    ``watch``, where there is one, is called before every piece of work with the least number of operations that it takes,
    and raises where there is no time for them.
    """

    terms: tuple[Term, ...]
    sets: Mapping[str, PointSet]
    weights: Mapping[str, float]
    watch: Watch | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def count(self) -> int:
        """Count the points of all terms."""
        return sum(len(self.sets[term.name].points) for term in self.terms)

    def only(self, *names: str) -> Objective:
        """Keep the terms with these names."""
        return replace(self, terms=tuple(term for term in self.terms if term.name in names))

    def look(self, operations: float | int = 0) -> None:
        """Look at the clock before work of so many operations."""
        if self.watch is not None:
            self.watch(operations)

    def need_residuals(self) -> None:
        """Raise InputError for a density, which has no residuals."""
        for term in self.terms:
            if term.kind == "density":
                raise InputError(
                    f"{term.name} is a density without residuals, which this method needs: use a first-order or quasi-Newton "
                    "method, as recipe adam, soap, ssbroyden or lbfgs"
                )

    def residuals(self, field: nn.Module) -> Float[Tensor, " r"]:
        """Evaluate the weighted residuals (R,), term by term, differentiable by the parameters."""
        chosen = [term for term in self.terms if term.kind == "residual"]
        return torch.cat([self.weights[t.name] * value for t in chosen for value in t.at(field, self.sets[t.name])])

    def cost(self, field: nn.Module) -> Float[Tensor, ""]:
        """Evaluate the cost (): half the squares of all residuals, and the integrals of densities."""
        self.look()
        parts = [self._integral(term, field) for term in self.terms if term.kind == "density"]
        if len(parts) < len(self.terms):
            parts.insert(0, half_squares(self.residuals(field)))
        return sum(parts[1:], parts[0])

    def finite_cost(self, field: nn.Module) -> float:
        """Evaluate the cost of the terms that are finite, without a graph."""
        with torch.no_grad():
            cost = float(self.cost(field))
            shares = [] if math.isfinite(cost) else [float(share) for share in self.values(field).values()]
        return sum(share for share in shares if math.isfinite(share)) if shares else cost

    def values(self, field: nn.Module) -> dict[str, Float[Tensor, ""]]:
        """Evaluate the share of every term in the cost, ()."""
        return {term.name: self.only(term.name).cost(field) for term in self.terms}

    def gradient(self, field: nn.Module) -> tuple[Float[Tensor, ""], Float[Tensor, " p"]]:
        """Evaluate the cost () and its gradient (P,)."""
        parameters = list(field.parameters())
        with torch.enable_grad():
            value = self.cost(field)
            parts = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        return value.detach(), torch.cat([part.flatten() for part in parts])

    def clip(self, parameters: list[nn.Parameter], longest: float) -> None:
        """Cut the gradient that is beside parameters to a length."""
        torch.nn.utils.clip_grad_norm_(parameters, longest)

    def gradients(self, field: nn.Module) -> dict[str, Float[Tensor, " p"]]:
        """Evaluate the gradient of every term's share, (P,)."""
        return {term.name: self.only(term.name).gradient(field)[1] for term in self.terms}

    def linearise(self, field: nn.Module, subset: Literal["all", "output"] = "all") -> LinearSystem:
        """Linearise the residuals by all parameters, or by the coefficients that the output is linear in.

        Raises InputError for a density, which has no residuals, and for a field without such coefficients.
        """
        return self.stacked(lambda term: linearise_term(field, term, self.sets[term.name], subset, look=self.look))

    def stacked(self, linearised: Callable[[Term], tuple[Tensor, Tensor]]) -> LinearSystem:
        """Weigh the linearised residuals of all terms, and put them below each other."""
        self.need_residuals()
        parts = []
        for term in self.terms:
            self.look()
            residuals, jacobian = linearised(term)
            weight = self.weights[term.name]
            parts.append((weight * residuals, jacobian.mul_(weight)))
        return LinearSystem(torch.cat([r for r, _ in parts]), torch.cat([j for _, j in parts]))

    def affine(self, outputs: int) -> bool:
        """Tell whether every residual is linear in the jet, up to a constant: tried on jets drawn at random."""
        return all(t.kind == "residual" and _is_affine(t, self.sets[t.name], outputs) for t in self.terms)

    def check(self, field: nn.Module) -> None:
        """Raise InputError for values that are not finite, or that do not follow the field, naming the term."""
        for term in self.terms:
            term.check(field, self.sets[term.name])

    def replace_points(self, name: str, at: PointSet) -> Objective:
        """Take other points for a term; the weight is kept per point."""
        share = (self.sets[name].rows / at.rows) ** 0.5 if self._term(name).kind == "residual" else 1.0
        weights = {**self.weights, name: self.weights[name] * share}
        return replace(self, sets={**self.sets, name: at}, weights=weights)

    def reweighted(self, weights: Mapping[str, float]) -> Objective:
        """Take other weights."""
        return replace(self, weights={**self.weights, **weights})

    def per_point(self) -> dict[str, float]:
        """Compute the weight of each term's residuals at a single point, or of a single row."""
        return {name: weight * self.sets[name].rows ** 0.5 for name, weight in self.weights.items()}

    def judged_at(self, sets: Mapping[str, PointSet], terms: tuple[Term, ...]) -> Objective:
        """Replace the points of all terms, densities by residuals, with weights on the same scale."""
        found = self
        for term in self.terms:
            found = found.replace_points(term.name, sets[term.name])
            if term.kind == "density":
                share = sets[term.name].rows ** -0.5
                found = found.reweighted({term.name: term.user_weight * share})
        return replace(found, terms=terms)

    def _term(self, name: str) -> Term:
        return next(term for term in self.terms if term.name == name)

    def _integral(self, term: Term, field: nn.Module) -> Tensor:
        at = self.sets[term.name]
        sums = [value.sum() if at.weight is not None else value.mean() for value in term.at(field, at)]
        return self.weights[term.name] * sum(sums[1:], sums[0])


def make_terms(problem: Problem, *, fitted: bool = True) -> tuple[Term, ...]:
    """Make the terms of a problem: its equation, or what is fitted in place of it, and its conditions."""
    form = problem.form if fitted or problem.form is None else problem.form.judge
    if form is not None:
        equation = _form_term(form)
    elif problem.energy is not None and fitted:
        equation = Term(
            "equation", lambda jet, at, _: problem.energies(jet, at.points), problem.second, "density", True
        )
    else:
        equation = Term("equation", lambda jet, at, _: problem.interior(jet, at.points), problem.second, inside=True)
    conditions = zip(problem.condition_names, problem.conditions, strict=True)
    return (equation, *(_condition_term(problem, name, condition) for name, condition in conditions))


def _form_term(form: Form) -> Term:
    return Term(
        "equation", lambda jet, at, _: form.values(jet, at.points), form.second, form.kind, True, slopes=form.slopes
    )


def make_objective(problem: Problem, sets: Mapping[str, PointSet]) -> Objective:
    """Take a problem at points by the names of its terms, with weights 1."""
    terms = make_terms(problem)
    return Objective(terms, {term.name: sets[term.name] for term in terms}, {term.name: 1.0 for term in terms})


def thinned(term: Term, at: PointSet) -> PointSet:
    """Keep the first points where they are in low-discrepancy order: a mean of rows needs no more."""
    return PointSet._make(None if part is None else part[:256] for part in at) if term.inside else at


def _condition_term(problem: Problem, name: str, condition: Condition) -> Term:
    def function(jet: Jet, at: PointSet, partner: Jet | None) -> dict[str, Tensor]:
        normals = torch.zeros_like(at.points) if at.normals is None else at.normals
        found = condition.residual(jet, Side(at.points, normals, partner, at.data))
        if found.shape != at.points.shape[:-1]:
            raise InputError(
                f"condition {condition.name!r} of {problem.name} gives {tuple(found.shape)} for {len(at.points)} points: "
                f"give ({len(at.points)},)"
            )
        return {name: found}

    return Term(name, function, condition.second, user_weight=condition.weight)


def _is_affine(term: Term, at: PointSet, outputs: int) -> bool:
    """Tell whether r(a + b) + r(0) = r(a) + r(b), and the same for 3 a and -2 a, to rounding."""
    at = thinned(term, at)
    generator = torch.Generator().manual_seed(0)
    count, axes = at.points.shape
    second = {"axes": (axes,), "full": (axes, axes), "laplacian": (), "none": (0,)}[term.second]

    def draw() -> Jet:
        shapes = ((), (axes,), second)
        return Jet(*(torch.randn(count, outputs, *s, generator=generator, dtype=at.points.dtype) for s in shapes))

    def residual(first: int, other: int) -> Tensor:
        jets = [Jet(*(first * u + other * v for u, v in zip(x, y, strict=True))) for x, y in pairs]
        with torch.no_grad():
            return torch.stack(term.values(jets[0], at, jets[1]))

    pairs = [(draw(), draw()), (draw(), draw())]
    zero, a, b = residual(0, 0), residual(1, 0), residual(0, 1)
    size = 1e-9 * (1 + zero.abs().amax() + a.abs().amax() + b.abs().amax())
    straight = (residual(1, 1) + zero - a - b, residual(3, 0) + 2 * zero - 3 * a, residual(-2, 0) - 3 * zero + 2 * a)
    return all(bool((miss.abs() <= size).all()) for miss in straight)
