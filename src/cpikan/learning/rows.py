"""Rows: a problem at chosen points, as weighted residuals of a field with their Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jacrev

from cpikan.errors import InputError
from cpikan.fields.functional import functional, named_parameters, parameter_vector
from cpikan.fields.jet_tape import JetTape
from cpikan.fields.layered import LayeredField
from cpikan.fields.protocol import Jet, LinearOutput, Second
from cpikan.learning.points import Points, boundary_points, interior_points, measured_part
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box

_BATCH = 128  # reverse passes at once, for fields that have no tape


@dataclass(frozen=True)
class RowSet:
    """Residuals of one kind: ``function(jet, x, jet at partner) -> {name: (B,)}`` at ``points`` (B, d), times ``weight``.

    ``share`` multiplies what balancing finds.
    """

    name: str
    points: Tensor
    function: Callable[[Jet, Tensor, Jet | None], dict[str, Tensor]]
    second: Second
    partner: Tensor | None = None
    weight: float = 1.0
    inside: bool = False
    share: float = 1.0


@dataclass(frozen=True)
class Rows:
    """All residuals of a problem at its points; rows are set by set, and within one residual by residual."""

    sets: tuple[RowSet, ...]

    @property
    def count(self) -> int:
        """Points in all."""
        return sum(len(one.points) for one in self.sets)

    def residuals(self, field: nn.Module) -> Tensor:
        """Weighted residuals (R,), differentiable by the parameters."""
        parts = []
        jet: Any = field.jet
        for one in self.sets:
            partner = None if one.partner is None else jet(one.partner, one.second)
            found = one.function(jet(one.points, one.second), one.points, partner)
            parts += [one.weight * value for value in found.values()]
        return torch.cat(parts)

    def linearise(self, field: nn.Module, *, last_only: bool = False) -> tuple[Tensor, Tensor]:
        """Weighted residuals (R,) and their Jacobian (R, P), of the output's coefficients (F outputs) alone where asked for."""
        residuals, jacobians = [], []
        for one in self.sets:
            r, j = _linearise_set(field, one, last_only)
            residuals.append(one.weight * r)
            jacobians.append(j.mul_(one.weight))
        return torch.cat(residuals), torch.cat(jacobians)

    def affine(self, outputs: int) -> bool:
        """Whether every residual is linear in the jet, up to a constant: tried on jets drawn at random."""
        return all(_is_affine(one, outputs) for one in self.sets)

    def balanced(self, field: nn.Module) -> Rows:
        """The same with weights that make the rows of every set equally long in mean square, per point.

        Squared, the weight is the inverse of the mean of |dr/dparameters|^2, the trace of the neural tangent kernel's
        block (Wang, Yu and Perdikaris 2022), divided by the number of points; a condition's own weight multiplies it.
        """
        sets = []
        for one in self.sets:
            _, jacobian = _linearise_set(field, _thinned(one), True)
            trace = float(jacobian.square().sum(dim=-1).mean())
            weight = (trace * len(one.points)) ** -0.5 if trace > 0 else len(one.points) ** -0.5
            sets.append(replace(one, weight=weight * one.share))
        return Rows(tuple(sets))


def make_rows(problem: Problem, points: Points) -> Rows:
    """The problem's equation inside and its conditions on the boundary, weights 1."""
    inside = torch.from_numpy(interior_points(problem, points))
    sets = [RowSet("equation", inside, lambda jet, x, _: problem.interior(jet, x), problem.second, inside=True)]
    sets += [_condition_rows(problem, condition, points) for condition in problem.conditions]
    return Rows(tuple(sets))


def check_start(rows: Rows, field: nn.Module) -> None:
    """Raise InputError for residuals that are not finite at the start, naming the set."""
    for one in rows.sets:
        with torch.no_grad():
            found = Rows((one,)).residuals(field)
        if not bool(torch.isfinite(found).all()):
            raise InputError(
                f"residuals of {one.name!r} are not finite at the start: check the formula at the region's ends"
            )


def _condition_rows(problem: Problem, condition: Condition, points: Points) -> RowSet:
    positions, normals = (torch.from_numpy(part) for part in boundary_points(problem, condition, points))
    data = None if condition.data is None else condition.data[measured_part(len(condition.data), points)]
    partner = None
    if condition.period is not None:
        assert isinstance(problem.region, Box)
        axis = problem.region.axes.index(condition.period)
        partner = positions.clone()
        partner[:, axis] = problem.region.upper[axis]

    def function(jet: Jet, x: Tensor, other: Jet | None) -> dict[str, Tensor]:
        found = condition.residual(jet, Side(x, normals, other, data))
        if found.shape != x.shape[:-1]:
            raise InputError(
                f"condition {condition.name!r} of {problem.name} gives {tuple(found.shape)} for {len(x)} points: "
                f"give ({len(x)},)"
            )
        return {condition.name: found}

    return RowSet(condition.name, positions, function, "none", partner, share=condition.weight)


def _thinned(one: RowSet) -> RowSet:
    """The first points alone where they are in low-discrepancy order: a mean of rows needs no more."""
    return replace(one, points=one.points[:256]) if one.inside else one


def _is_affine(one: RowSet, outputs: int) -> bool:
    """r(a + b) + r(0) = r(a) + r(b), and the same for 3 a and -2 a, to rounding."""
    one = _thinned(one)
    generator = torch.Generator().manual_seed(0)
    count, axes = one.points.shape
    second = {"axes": (axes,), "full": (axes, axes), "laplacian": (), "none": (0,)}[one.second]

    def draw() -> Jet:
        shapes = ((), (axes,), second)
        return Jet(*(torch.randn(count, outputs, *s, generator=generator, dtype=one.points.dtype) for s in shapes))

    def residual(first: float, other: float) -> Tensor:
        jets = [Jet(*(first * u + other * v for u, v in zip(x, y, strict=True))) for x, y in pairs]
        with torch.no_grad():
            return torch.stack(list(one.function(jets[0], one.points, jets[1]).values()))

    pairs = [(draw(), draw()), (draw(), draw())]
    zero, a, b = residual(0, 0), residual(1, 0), residual(0, 1)
    size = 1e-9 * (1 + zero.abs().amax() + a.abs().amax() + b.abs().amax())
    straight = (residual(1, 1) + zero - a - b, residual(3, 0) + 2 * zero - 3 * a, residual(-2, 0) - 3 * zero + 2 * a)
    return all(bool((miss.abs() <= size).all()) for miss in straight)


def _linearise_set(field: nn.Module, one: RowSet, last_only: bool) -> tuple[Tensor, Tensor]:
    if last_only:
        return _linearise_output(field, one)
    if not (isinstance(field, LayeredField) and JetTape.takes(field)):
        return _linearise_any(field, one)
    tape = JetTape(field, one.points, one.second)
    other = None if one.partner is None else JetTape(field, one.partner, one.second)
    with torch.enable_grad():
        found = one.function(tape.jet, one.points, None if other is None else other.jet)
    rows = []
    for value in found.values():
        j = tape.rows(value)
        rows.append(j if other is None else j + other.rows(value))
    return torch.cat([value.detach() for value in found.values()]), torch.cat(rows)


@torch.no_grad()
def _linearise_output(field: nn.Module, one: RowSet) -> tuple[Tensor, Tensor]:
    """Rows of the coefficients that the output is linear in, (B, F outputs): sums of features times dr/djet."""
    if not isinstance(field, LinearOutput):
        raise InputError(f"last-layer step for {type(field).__name__}: give a field whose output is linear")
    places = [one.points] if one.partner is None else [one.points, one.partner]
    bases = [field.features_jet(x, one.second) for x in places]
    coefficients = field.output_coefficients()
    jets = [Jet(*(torch.einsum("bf...,fo->bo...", part, coefficients) for part in basis)) for basis in bases]
    leaves = [part.requires_grad_() for jet in jets for part in jet]
    with torch.enable_grad():
        found = one.function(jets[0], one.points, jets[1] if len(jets) > 1 else None)
        sums = [value.sum() for value in found.values()]
    rows = []
    for total in sums:
        pushes = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        parts = zip((part for basis in bases for part in basis), pushes, strict=True)
        rows.append(sum(_outer(part, push) for part, push in parts if push.numel()))
    return torch.cat([value.detach() for value in found.values()]), torch.cat(rows)  # type: ignore[arg-type]


def _outer(features: Tensor, push: Tensor) -> Tensor:
    """(B, F, ...) with dr/dstream (B, outputs, ...): (B, F outputs), summed over what follows."""
    count, outputs = push.shape[:2]
    return torch.einsum(
        "bfs,bos->bfo",
        features.flatten(2) if features.ndim > 2 else features[..., None],
        push.reshape(count, outputs, -1),
    ).flatten(1)


def _linearise_any(field: nn.Module, one: RowSet) -> tuple[Tensor, Tensor]:
    """For any field: a reverse pass per residual, in batches."""
    jet = functional(field, "jet")

    def at(vector: Tensor) -> tuple[Tensor, Tensor]:
        tensors = named_parameters(field, vector)
        other = None if one.partner is None else jet(tensors, one.partner, one.second)
        values = torch.cat(list(one.function(jet(tensors, one.points, one.second), one.points, other).values()))
        return values, values

    jacobian, values = jacrev(at, has_aux=True, chunk_size=_BATCH)(parameter_vector(field))
    return values.detach(), jacobian.detach()
