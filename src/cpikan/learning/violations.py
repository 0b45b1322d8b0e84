"""Violations: how far a field is from every condition of its problem, in the condition's units and relative to what it asks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.fields.protocol import Jet
from cpikan.learning.objective import Objective, PointSet, Term
from cpikan.learning.unknowns import outputs_of, unknowns_of
from cpikan.physics.linearise import pullback

_SAMPLE = 512  # points that show how large a field and its derivatives are


@dataclass(frozen=True)
class Violation:
    """The largest residual of one condition, in its own units, and the same relative to what the condition deals with."""

    name: str
    largest: float
    relative: float


def violations(field: nn.Module, heldout: Objective) -> list[Violation]:
    """Find the violation of every condition at the held-out points.

    What a condition deals with is the larger of its residual for u = 0 (the data) and of what the field contributes to it
    where the field is largest: a wall kept at zero is measured by the largest value inside.
    """
    inside = next(term for term in heldout.terms if term.inside)
    seen = heldout.sets[inside.name].points[:_SAMPLE]
    found = []
    for term in heldout.terms:
        at = heldout.sets[term.name]
        if not term.inside and len(at.points):
            largest = float(_largest(term.at(field, at)))
            scale = max(_data_size(field, term, at), _response(field, term, at, seen))
            found.append(Violation(term.name, largest, min(1.0, largest / scale) if scale else float(largest > 0)))
    return found


def zero_cost(field: nn.Module, heldout: Objective) -> float:
    """Compute the held-out cost of u = 0 with the unknowns as they are, whatever the field, of the terms that are finite."""
    return heldout.finite_cost(_Zero(field))


class _Zero(nn.Module):
    """A field that vanishes, with the outputs and the unknowns of another."""

    def __init__(self, like: Any) -> None:
        super().__init__()
        self._outputs, self._unknowns = outputs_of(like), unknowns_of(like)

    def jet(self, x: Tensor, second: str = "axes") -> Jet:
        """Give zeros, (B, outputs) and derivatives; the unknowns where they are outputs."""
        axes = x.shape[1]
        tails: dict[str, tuple[int, ...]] = {"axes": (axes,), "full": (axes, axes), "laplacian": (), "none": (0,)}
        jet = Jet(*(x.new_zeros(len(x), self._outputs, *tail) for tail in ((), (axes,), tails[second])))
        if self._unknowns is not None:
            jet.value[:, self._outputs - len(self._unknowns) :] = self._unknowns.detach()
        return jet


def _jet(field: Any, x: Tensor, term: Term) -> Jet:
    with torch.no_grad():
        found: Jet = field.jet(x, term.second)
    return found


def _largest(found: list[Tensor]) -> Tensor:
    return torch.cat([value.detach() for value in found]).abs().max()


def _data_size(field: nn.Module, term: Term, at: PointSet) -> float:
    """Find the largest residual of u = 0; 0 where it is not finite, as where something is divided by u."""
    with torch.no_grad():
        size = float(_largest(term.at(_Zero(field), at)))
    return size if math.isfinite(size) else 0.0


def _response(field: nn.Module, term: Term, at: PointSet, seen: Tensor) -> float:
    """Bound what values and derivatives as large as at the points ``seen`` contribute to the residual, to first order."""
    at = at._replace(weight=None)
    sizes = [part.abs().amax(dim=0) if part.numel() else part[0] for part in _jet(field, seen, term)]
    jets = [
        Jet(*(part.requires_grad_() for part in _jet(field, x, term))) for x in (at.points, at.partner) if x is not None
    ]
    with torch.enable_grad():
        found = term.values(jets[0], at, jets[1] if len(jets) > 1 else None)
    total = 0.0
    for value in found:
        push = pullback(value, jets[:1])[0]  # a period compares two ends of one size
        parts = [(slope.abs() * size).flatten(1).sum(dim=1) for slope, size in zip(push, sizes, strict=True)]
        size_at = sum(parts[1:], parts[0])
        total = max(total, float(size_at.max() if at.mix is None else size_at.sum()))
    return total
