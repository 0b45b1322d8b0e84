"""Violations: how far a field is from every condition of its problem, in the condition's units and relative to what it asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.fields.protocol import Jet
from cpikan.learning.objective import Objective, PointSet, Term
from cpikan.learning.panel import SOLE_JUDGE, Panel
from cpikan.learning.unknowns import outputs_of, unknowns_of
from cpikan.physics.linearise import pullback

_SAMPLE = 512  # points that show how large a field and its derivatives are


@dataclass(frozen=True)
class Violation:
    """The largest residual of one condition, in its own units, and the same relative to what the condition deals with."""

    name: str
    largest: float
    relative: float


def violations(field: nn.Module, heldout: Objective, panel: Panel = SOLE_JUDGE) -> list[Violation]:
    """Find the violation of every condition at the held-out points, of which each process of a panel looks at its own.

    What a condition deals with is the larger of its residual for u = 0 (the data) and of what the field contributes to it
    where the field is largest: a wall kept at zero is measured by the largest value inside.
    """
    inside = next(term for term in heldout.terms if term.inside)
    seen = panel.points(heldout.sets[inside.name].points[:_SAMPLE])
    found = []
    for term in heldout.terms:
        if not term.inside and len(heldout.sets[term.name].points):
            sizes, at = _sizes(field, term, seen, panel), panel.taken(heldout.sets[term.name])
            here = torch.zeros(3, dtype=torch.float64)
            if len(at.points):
                with torch.no_grad():
                    value, data = (_largest(term.at(one, at)) for one in (field, _Zero(field)))
                here = torch.stack([value, data, _response(field, term, at, sizes)])
            largest, data_size, response = panel.largest(here).tolist()
            # of no use where it is not finite, as where something is divided by u
            scale = max(data_size if math.isfinite(data_size) else 0.0, response)
            found.append(Violation(term.name, largest, min(1.0, largest / scale) if scale else float(largest > 0)))
    return found


def zero_cost(field: nn.Module, heldout: Objective, panel: Panel = SOLE_JUDGE) -> float:
    """Compute the held-out cost of u = 0 with the unknowns as they are, whatever the field, of the terms that are finite."""
    return panel.finite_cost(heldout, _Zero(field))


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


def _sizes(field: nn.Module, term: Term, seen: Tensor, panel: Panel) -> list[Tensor]:
    """Find how large values and derivatives are at the points of all processes, in the shapes of a jet of one point."""
    jet = _jet(field, seen, term)
    here = [torch.cat([part.abs(), part.new_zeros(1, *part.shape[1:])]).amax(dim=0) for part in jet]
    everywhere = panel.largest(torch.cat([part.flatten() for part in here]))
    parts = everywhere.split([part.numel() for part in here])
    return [part.reshape(like.shape) for part, like in zip(parts, here, strict=True)]


def _response(field: nn.Module, term: Term, at: PointSet, sizes: Sequence[Tensor]) -> Tensor:
    """Bound what values and derivatives of such ``sizes`` contribute to the residual, to first order, ()."""
    at = at._replace(weight=None)
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
    return torch.tensor(total, dtype=torch.float64)
