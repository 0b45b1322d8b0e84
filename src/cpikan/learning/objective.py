"""Objective: the cost of a field, from terms at point sets with weights, with its gradients and its linear system."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from cpikan.errors import InputError
from cpikan.fields.functional import functional, named_parameters, parameter_vector
from cpikan.fields.jet_tape import JetTape
from cpikan.fields.layered import LayeredField
from cpikan.fields.module_field import ModuleField
from cpikan.fields.point_tape import PointTape
from cpikan.fields.protocol import Jet, LinearOutput, Second
from cpikan.learning.unknowns import append_unknowns, network_of, unknowns_of
from cpikan.physics.linearise import contract, jet_at, pullback
from cpikan.physics.problem import Condition, Problem, Side

_BATCH = 128  # reverse passes at once, for fields that have no tape
Watch = Callable[[float], None]


class PointSet(NamedTuple):
    """Points (n, d) of a term, with what the term may need there.

    ``normals`` (n, d) point outwards, ``partner`` (n, d) are the points at the other end of a period, ``data`` (n,) was
    measured, and ``weight`` (n,) multiplies residuals point by point; for a density it is the quadrature weight. A term that
    couples its points has a ``mix`` (rows, n): its residuals are sums over points. ``shift`` (residuals of the term, rows) is
    added to residuals: lambda / mu where multipliers lambda complete the square, lambda r + mu r^2 / 2.
    """

    points: Tensor
    normals: Tensor | None = None
    partner: Tensor | None = None
    data: Tensor | None = None
    weight: Tensor | None = None
    shift: Tensor | None = None
    mix: Tensor | None = None

    @property
    def rows(self) -> int:
        """Count the residuals of each kind: one per point, unless points are coupled."""
        return len(self.points) if self.mix is None else len(self.mix)

    def assembled(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Make residuals (rows,) of what a term is at every point: coupled, shifted and weighed."""
        found = list(values) if self.mix is None else [self.mix @ value for value in values]
        if self.shift is not None:
            found = [value + shift for value, shift in zip(found, self.shift, strict=True)]
        return found if self.weight is None else [self.weight * value for value in found]

    def slopes(self, rows: Tensor) -> Tensor:
        """Make rows of a Jacobian (rows, P) of the derivatives at every point (n, P)."""
        found = rows if self.mix is None else self.mix @ rows
        return found if self.weight is None else self.weight[:, None] * found


@dataclass(frozen=True)
class Term:
    """One summand of the cost: ``function(jet, at, jet at partner) -> {name: (n,)}``.

    A "residual" is squared and summed. A "density" is integrated as it is, by the weights of its points or else as a mean:
    the energy of Deep Ritz (E and Yu 2018). ``user_weight`` multiplies what balancing finds; ``inside`` marks the equation.
    """

    name: str
    function: Callable[[Jet, PointSet, Jet | None], Mapping[str, Tensor]]
    second: Second = "none"
    kind: Literal["residual", "density"] = "residual"
    inside: bool = False
    user_weight: float = 1.0

    def at(self, field: nn.Module, at: PointSet) -> list[Tensor]:
        """Evaluate the term at points, (rows,) per residual, times the weights of the points; differentiable."""
        jet: Any = field.jet
        partner = None if at.partner is None else jet(at.partner, self.second)
        return self.values(jet(at.points, self.second), at, partner)

    def values(self, jet: Jet, at: PointSet, partner: Jet | None) -> list[Tensor]:
        """Evaluate the term on jets."""
        return at.assembled(self.pointwise(jet, at, partner))

    def pointwise(self, jet: Jet, at: PointSet, partner: Jet | None) -> list[Tensor]:
        """Evaluate the term at every point, (n,) per residual: each depends on the jets of its own point alone."""
        return list(self.function(jet, at, partner).values())


class LinearSystem(NamedTuple):
    """Weighted residuals (R,) and their Jacobian (R, P)."""

    residuals: Tensor
    jacobian: Tensor

    @property
    def cost(self) -> Tensor:
        """Compute the cost of the residuals, half their sum of squares, ()."""
        return half_squares(self.residuals)


def half_squares(residuals: Tensor) -> Tensor:
    """Give the cost of residuals: half the sum of their squares."""
    return 0.5 * residuals.square().sum()


class Place(Protocol):
    """What an objective is where a field is, for some of the field's parameters."""

    def residuals(self, field: nn.Module) -> Tensor: ...

    def cost(self, field: nn.Module) -> Tensor: ...

    def linearise(self, field: nn.Module, subset: Literal["all", "output"] = "all") -> LinearSystem: ...

    def look(self, operations: float = 0.0) -> None: ...


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

    def look(self, operations: float = 0.0) -> None:
        """Look at the clock before work of so many operations."""
        if self.watch is not None:
            self.watch(operations)

    def need_residuals(self) -> None:
        """Raise InputError for a density, which has no residuals."""
        for term in self.terms:
            if term.kind == "density":
                raise InputError(
                    f"{term.name} is a density without residuals: use a first-order or quasi-Newton method"
                )

    def residuals(self, field: nn.Module) -> Tensor:
        """Evaluate the weighted residuals (R,), term by term, differentiable by the parameters."""
        chosen = [term for term in self.terms if term.kind == "residual"]
        return torch.cat([self.weights[t.name] * value for t in chosen for value in t.at(field, self.sets[t.name])])

    def cost(self, field: nn.Module) -> Tensor:
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

    def values(self, field: nn.Module) -> dict[str, Tensor]:
        """Evaluate the share of every term in the cost, ()."""
        return {term.name: self.only(term.name).cost(field) for term in self.terms}

    def gradient(self, field: nn.Module) -> tuple[Tensor, Tensor]:
        """Evaluate the cost () and its gradient (P,)."""
        parameters = list(field.parameters())
        with torch.enable_grad():
            value = self.cost(field)
            parts = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        return value.detach(), torch.cat([part.flatten() for part in parts])

    def gradients(self, field: nn.Module) -> dict[str, Tensor]:
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
        """Raise InputError for values that are not finite, naming the term."""
        for term in self.terms:
            with torch.no_grad():
                found = torch.cat(term.at(field, self.sets[term.name]))
            if not bool(torch.isfinite(found).all()):
                raise InputError(
                    f"residuals of {term.name!r} are not finite at the start: check the formula at the region's ends"
                )

    def replace_points(self, name: str, at: PointSet) -> Objective:
        """Take other points for a term; the weight is kept per point."""
        share = (self.sets[name].rows / at.rows) ** 0.5 if self._term(name).kind == "residual" else 1.0
        weights = {**self.weights, name: self.weights[name] * share}
        return replace(self, sets={**self.sets, name: at}, weights=weights)

    def reweighted(self, weights: Mapping[str, float]) -> Objective:
        """Take other weights."""
        return replace(self, weights={**self.weights, **weights})

    def per_point(self) -> dict[str, float]:
        """Compute the weight of each term's residuals at a single point."""
        return {name: weight * self.sets[name].rows ** 0.5 for name, weight in self.weights.items()}

    def judged_at(self, sets: Mapping[str, PointSet], terms: tuple[Term, ...]) -> Objective:
        """Replace the points of all terms, densities by residuals, with weights on the same scale."""
        found = self
        for term in self.terms:
            found = found.replace_points(term.name, sets[term.name])
            if term.kind == "density":
                share = len(sets[term.name].points) ** -0.5
                found = found.reweighted({term.name: term.user_weight * share})
        return replace(found, terms=terms)

    def _term(self, name: str) -> Term:
        return next(term for term in self.terms if term.name == name)

    def _integral(self, term: Term, field: nn.Module) -> Tensor:
        at = self.sets[term.name]
        sums = [value.sum() if at.weight is not None else value.mean() for value in term.at(field, at)]
        return self.weights[term.name] * sum(sums[1:], sums[0])


def make_terms(problem: Problem, *, fitted: bool = True) -> tuple[Term, ...]:
    """Make the terms of a problem: its equation, or the energy to be fitted in place of it, and its conditions."""
    if problem.energy is not None and fitted:
        equation = Term(
            "equation", lambda jet, at, _: problem.energies(jet, at.points), problem.second, "density", True
        )
    else:
        equation = Term("equation", lambda jet, at, _: problem.interior(jet, at.points), problem.second, inside=True)
    conditions = zip(problem.condition_names, problem.conditions, strict=True)
    return (equation, *(_condition_term(problem, name, condition) for name, condition in conditions))


def make_objective(problem: Problem, sets: Mapping[str, PointSet]) -> Objective:
    """Take a problem at points by the names of its terms, with weights 1."""
    terms = make_terms(problem)
    return Objective(terms, {term.name: sets[term.name] for term in terms}, {term.name: 1.0 for term in terms})


def thinned(term: Term, at: PointSet) -> PointSet:
    """Keep the first points where they are in low-discrepancy order: a mean of rows needs no more."""
    return PointSet._make(None if part is None else part[:256] for part in at) if term.inside else at


def linearise_term(
    field: nn.Module,
    term: Term,
    at: PointSet,
    subset: str,
    *,
    tapes: Sequence[JetTape] = (),
    look: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Linearise the residuals of one term, without its weight: (R,) and (R, P).

    ``tapes`` of the points and of their partners are used where they were made before; ``look`` is called between batches.
    """
    if subset == "output":
        return _linearise_output(field, term, at, tapes)
    if has_tape(field):
        return _linearise_taped(field, term, at, tapes or make_tapes(field, term, at))
    if isinstance(network_of(field), ModuleField):
        return _linearise_taped(field, term, at, [PointTape(network_of(field), x, term.second) for x in _points_of(at)])
    return linearise_any(field, term, at, look)


def has_tape(field: nn.Module) -> bool:
    """Tell whether all points of a field are linearised in one pass back."""
    network = network_of(field)
    return isinstance(network, LayeredField) and JetTape.takes(network)


def make_tapes(field: nn.Module, term: Term, at: PointSet) -> list[JetTape]:
    """Evaluate a field at the points of a term and at their partners."""
    return [JetTape(network_of(field), x, term.second) for x in _points_of(at)]


def _points_of(at: PointSet) -> list[Tensor]:
    """List the points that a term looks at, and their partners."""
    return [x for x in (at.points, at.partner) if x is not None]


def linearise_any(
    field: nn.Module, term: Term, at: PointSet, look: Callable[[], None] = lambda: None
) -> tuple[Tensor, Tensor]:
    """Linearise by a reverse pass per residual, in batches, for any field."""
    jet = functional(field, "jet")

    def values_at(vector: Tensor) -> Tensor:
        tensors = named_parameters(field, vector)
        other = None if at.partner is None else jet(tensors, at.partner, term.second)
        return torch.cat(term.values(jet(tensors, at.points, term.second), at, other))

    values, pull = vjp(values_at, parameter_vector(field))[:2]
    rows = []
    for batch in torch.eye(len(values), dtype=values.dtype, device=values.device).split(_BATCH):
        look()
        rows.append(vmap(pull)(batch)[0])
    return values.detach(), torch.cat(rows).detach()


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

    return Term(name, function, user_weight=condition.weight)


def _is_affine(term: Term, at: PointSet, outputs: int) -> bool:
    """Tell whether r(a + b) + r(0) = r(a) + r(b), and the same for 3 a and -2 a, to rounding."""
    at = thinned(term, at)
    generator = torch.Generator().manual_seed(0)
    count, axes = at.points.shape
    second = {"axes": (axes,), "full": (axes, axes), "laplacian": (), "none": (0,)}[term.second]

    def draw() -> Jet:
        shapes = ((), (axes,), second)
        return Jet(*(torch.randn(count, outputs, *s, generator=generator, dtype=at.points.dtype) for s in shapes))

    def residual(first: float, other: float) -> Tensor:
        jets = [Jet(*(first * u + other * v for u, v in zip(x, y, strict=True))) for x, y in pairs]
        with torch.no_grad():
            return torch.stack(term.values(jets[0], at, jets[1]))

    pairs = [(draw(), draw()), (draw(), draw())]
    zero, a, b = residual(0, 0), residual(1, 0), residual(0, 1)
    size = 1e-9 * (1 + zero.abs().amax() + a.abs().amax() + b.abs().amax())
    straight = (residual(1, 1) + zero - a - b, residual(3, 0) + 2 * zero - 3 * a, residual(-2, 0) - 3 * zero + 2 * a)
    return all(bool((miss.abs() <= size).all()) for miss in straight)


def _linearise_taped(
    field: nn.Module, term: Term, at: PointSet, tapes: Sequence[JetTape | PointTape]
) -> tuple[Tensor, Tensor]:
    """Linearise the term at all points by one backward pass."""
    unknowns = _unknowns_at(field, at)
    with torch.enable_grad():
        jets = [append_unknowns(tape.jet, unknowns) for tape in tapes]
        found = term.pointwise(jets[0], at, jets[1] if len(jets) > 1 else None)
    rows = []
    for value in found:
        parts = [tape.rows(value) for tape in tapes]
        row = sum(parts[1:], parts[0])  # in the order of parameters, where unknowns come first
        rows.append(at.slopes(row if unknowns is None else torch.cat([_by_unknowns(value, unknowns), row], dim=1)))
    return torch.cat(at.assembled([value.detach() for value in found])), torch.cat(rows)


@torch.no_grad()
def _linearise_output(field: nn.Module, term: Term, at: PointSet, tapes: Sequence[JetTape]) -> tuple[Tensor, Tensor]:
    """Linearise by the coefficients of the output, (R, F outputs), and by the unknowns where there are such."""
    network = network_of(field)
    if not isinstance(network, LinearOutput):
        raise InputError(f"last-layer step for {type(network).__name__}: give a field whose output is linear")
    bases = [tape.features() for tape in tapes]
    bases = bases or [network.features_jet(x, term.second) for x in _points_of(at)]
    jets = [jet_at(basis, network.output_coefficients()) for basis in bases]
    unknowns = _unknowns_at(field, at)
    with torch.enable_grad():
        full = [append_unknowns(jet, unknowns) for jet in jets]
        found = term.pointwise(full[0], at, full[1] if len(full) > 1 else None)
    rows = []
    for value in found:
        row = contract(bases, pullback(value, jets))
        rows.append(at.slopes(row if unknowns is None else torch.cat([row, _by_unknowns(value, unknowns)], dim=1)))
    return torch.cat(at.assembled([value.detach() for value in found])), torch.cat(rows)


def _unknowns_at(field: nn.Module, at: PointSet) -> Tensor | None:
    """Repeat the unknowns at every point, (n, unknowns), as leaves to derive by; None where there are none."""
    found = unknowns_of(field)
    return None if found is None else found.detach().expand(len(at.points), -1).clone().requires_grad_()


def _by_unknowns(residual: Tensor, unknowns: Tensor) -> Tensor:
    """Differentiate residuals by the unknowns at their points, (n, unknowns)."""
    with torch.enable_grad():
        total = residual.sum()
    return torch.autograd.grad(total, unknowns, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
