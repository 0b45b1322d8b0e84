"""Linearise terms: residuals with their rows of the Jacobian, by the fastest way that a field has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jacrev, vjp, vmap

from cpikan.errors import InputError
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.decomposed_tape import DecomposedTape
from cpikan.fields.duals import along_axis, cut
from cpikan.fields.functional import functional, named_parameters, parameter_vector
from cpikan.fields.jet_tape import JetTape
from cpikan.fields.layered import LayeredField
from cpikan.fields.module_field import ModuleField
from cpikan.fields.point_tape import PointTape
from cpikan.fields.protocol import LinearOutput
from cpikan.learning.term import PointSet, Term
from cpikan.learning.unknowns import append_unknowns, network_of, unknowns_of
from cpikan.physics.linearise import contract, jet_at, pullback

Rows = tuple[Float[Tensor, " r"], Float[Tensor, "r p"]]  # residuals and their Jacobian
_BATCH = 128  # reverse passes at once, for fields that have no tape
_POINTS = 32  # at once, for the same


def linearise_term(
    field: nn.Module,
    term: Term,
    at: PointSet,
    subset: str,
    *,
    tapes: Sequence[JetTape] = (),
    look: Callable[[], None] = lambda: None,
) -> Rows:
    """Linearise the residuals of one term, without its weight: (R,) and (R, P).

    ``tapes`` of the points and of their partners are used where they were made before; ``look`` is called between batches.
    """
    if subset == "output":
        return _with_slopes(lambda at, tapes: _linearise_output(field, term, at, tapes), term, at, tapes)
    if has_tape(field):
        return _with_slopes(
            lambda at, tapes: _linearise_taped(field, term, at, tapes or make_tapes(field, term, at)), term, at, tapes
        )
    if isinstance(network_of(field), DecomposedField) and not term.slopes:
        tapes_at = [DecomposedTape(network_of(field), x, term.second) for x in _points_of(at)]
        return _linearise_taped(field, term, at, tapes_at)
    if isinstance(network_of(field), ModuleField) and not term.slopes:
        return _linearise_taped(field, term, at, [PointTape(network_of(field), x, term.second) for x in _points_of(at)])
    return linearise_any(field, term, at, look)


def _with_slopes(
    linearise: Callable[[PointSet, Sequence[JetTape]], tuple[Tensor, Tensor]],
    term: Term,
    at: PointSet,
    tapes: Sequence[JetTape],
) -> Rows:
    """Linearise the residuals of a term, and differentiate both along the axes in forward mode where it asks for slopes."""
    if not term.slopes:
        return linearise(at, tapes)
    parts = [linearise(at, tapes)]
    for axis, weight in enumerate(term.slopes):
        residuals, rows = along_axis(lambda x: list(linearise(at._replace(points=x), ())), at.points, axis)
        parts.append((weight * residuals, weight * rows))
    return torch.cat([r for r, _ in parts]), torch.cat([j for _, j in parts])


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


def linearise_any(field: nn.Module, term: Term, at: PointSet, look: Callable[[], None] = lambda: None) -> Rows:
    """Linearise by a reverse pass per residual, for any field: every pass goes through a batch of points, not through all."""
    if term.slopes:
        return _linearise_whole(field, term, at, look)
    jet, parts = functional(field, "jet"), []
    bare = at._replace(shift=None, mix=None, tests=None, element=None, weight=None)

    def values_at(vector: Tensor, some: PointSet) -> tuple[Tensor, Tensor]:
        jets = [jet(named_parameters(field, vector), x, term.second) for x in _points_of(some)]
        found = torch.stack(term.pointwise(jets[0], some, jets[1] if len(jets) > 1 else None))
        return found, found

    for index in torch.arange(len(at.points)).split(_POINTS):
        look()
        some = bare.taken(index)
        parts.append(jacrev(partial(values_at, some=some), has_aux=True)(parameter_vector(field)))
    rows, values = (torch.cat(list(part), dim=1).detach() for part in zip(*parts, strict=True))
    return torch.cat(at.assembled(list(values))), torch.cat(at.slopes(list(rows)))


def _linearise_whole(field: nn.Module, term: Term, at: PointSet, look: Callable[[], None]) -> Rows:
    """Linearise by a reverse pass per residual through all points, where residuals are differentiated by the points too."""
    jet = functional(field, "jet")

    def values_at(vector: Tensor) -> Tensor:
        return torch.cat(term.through(partial(jet, named_parameters(field, vector)), at))

    values, pull = vjp(values_at, parameter_vector(field))[:2]
    rows = []
    for batch in torch.eye(len(values), dtype=values.dtype, device=values.device).split(_BATCH):
        look()
        rows.append(vmap(pull)(batch)[0])
    return values.detach(), torch.cat(rows).detach()


def _linearise_taped(
    field: nn.Module, term: Term, at: PointSet, tapes: Sequence[JetTape | PointTape | DecomposedTape]
) -> Rows:
    """Linearise the term at all points by one backward pass."""
    unknowns = _unknowns_at(field, at)
    with torch.enable_grad():
        jets = [append_unknowns(tape.jet, unknowns) for tape in tapes]
        found = term.pointwise(jets[0], at, jets[1] if len(jets) > 1 else None)
    rows = []
    for value in found:
        parts = [tape.rows(value) for tape in tapes]
        row = sum(parts[1:], parts[0])  # in the order of parameters, where unknowns come first
        rows.append(row if unknowns is None else torch.cat([_by_unknowns(value, unknowns), row], dim=1))
    return torch.cat(at.assembled([cut(value) for value in found])), torch.cat(at.slopes(rows))


@torch.no_grad()
def _linearise_output(field: nn.Module, term: Term, at: PointSet, tapes: Sequence[JetTape]) -> Rows:
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
        rows.append(row if unknowns is None else torch.cat([row, _by_unknowns(value, unknowns)], dim=1))
    return torch.cat(at.assembled([cut(value) for value in found])), torch.cat(at.slopes(rows))


def _unknowns_at(field: nn.Module, at: PointSet) -> Tensor | None:
    """Repeat the unknowns at every point, (n, unknowns), as leaves to derive by; None where there are none."""
    found = unknowns_of(field)
    return None if found is None else found.detach().expand(len(at.points), -1).clone().requires_grad_()


def _by_unknowns(residual: Tensor, unknowns: Tensor) -> Tensor:
    """Differentiate residuals by the unknowns at their points, (n, unknowns)."""
    if not residual.requires_grad:
        return torch.zeros_like(unknowns)
    with torch.enable_grad():
        total = residual.sum()
    return torch.autograd.grad(total, unknowns, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
