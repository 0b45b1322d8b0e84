"""SharedObjective: the cost of fields of subdomains, whose points and networks are shared among processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cpikan.fields.cover import Cover
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.protocol import Jet, Second
from cpikan.learning.objective import Objective, half_squares
from cpikan.learning.share import WHOLE, Share
from cpikan.learning.term import PointSet, Term
from cpikan.learning.unknowns import append_unknowns, network_of, unknowns_of


class Route(NamedTuple):
    """Points of this process: which of its boxes hold them, and what it tells others and hears of them there.

    ``out`` and ``into`` list by process the numbers of points.
    """

    cover: Cover
    out: Mapping[int, Tensor]
    into: Mapping[int, Tensor]


class Part(NamedTuple):
    """Points of a term that this process's networks make a difference to, which of them it counts, and their routes."""

    at: PointSet
    counted: Tensor
    points: Route
    partner: Route | None


@dataclass(frozen=True)
class SharedObjective(Objective):
    """An objective whose terms each process takes at the points that its own subdomains hold, ``parts`` by name.

    Where others hold a point too, or its partner across an interface, processes tell each other what their networks give
    there: values and derivatives, which count as numbers in the gradient of the one that hears them. So each has the
    gradient of the whole cost by its own networks, and what is sent grows with the points that several hold. ``sets`` stay
    those of all. Points of one process alone are never sent. Jagtap and Karniadakis (2020) and Shukla, Jagtap and
    Karniadakis, J. Comput. Phys. 447 (2021), whose interfaces send the same.
    """

    share: Share = dataclasses.field(default=WHOLE, compare=False, repr=False)
    parts: Mapping[str, Part] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def residuals(self, field: nn.Module) -> Tensor:
        """Evaluate the weighted residuals at this process's points, (R,), differentiable by its networks."""
        return torch.cat([value for value, _ in self._pairs(field)])

    def cost(self, field: nn.Module) -> Tensor:
        """Evaluate the cost of all processes, ()."""
        self.look()
        with torch.no_grad():
            return self._total(self._pairs(field))

    def gradient(self, field: nn.Module) -> tuple[Tensor, Tensor]:
        """Evaluate the cost of all processes () and its gradient by the networks of this one, zero for others, (P,)."""
        self.look()
        parameters = list(field.parameters())
        with torch.enable_grad():
            pairs = self._pairs(field)
            loss = half_squares(torch.cat([value for value, _ in pairs]))
            found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        unknowns = unknowns_of(field)
        flat = [
            self.share.ranks.total(part) if parameter is unknowns else part.flatten()
            for parameter, part in zip(parameters, found, strict=True)
        ]
        return self._total([(value.detach(), counted) for value, counted in pairs]), torch.cat(flat)

    def clip(self, parameters: list[nn.Parameter], longest: float) -> None:
        """Cut the gradient of all processes to a length; unknowns, which all have, count once."""
        gradients = [(self.share.divides(one), one.grad) for one in parameters if one.grad is not None]
        own, common = (
            torch.stack(
                [grad.square().sum() for divided, grad in gradients if divided is kind] or [torch.zeros(()).double()]
            )
            for kind in (True, False)
        )
        length = float((self.share.ranks.total(own.sum()[None]) + common.sum()).sqrt())
        share = min(1.0, longest / (length + 1e-6))  # as torch does
        for _, grad in gradients:
            grad.mul_(share)

    def _total(self, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        counted = half_squares(torch.cat([value[here] for value, here in pairs]))
        return self.share.ranks.total(counted[None])[0]

    def _pairs(self, field: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """Evaluate weighted residuals at this process's points, and which of them it counts."""
        found = []
        for term in self.terms:
            part = self.parts[term.name]
            values = term.through(self._jets(field, part), part.at)
            found += [(self.weights[term.name] * value, part.counted) for value in values]
        return found

    def _jets(self, field: nn.Module, part: Part) -> Callable[[Tensor, Second], Jet]:
        network, unknowns = network_of(field), unknowns_of(field)

        def jet(x: Tensor, second: Second) -> Jet:
            route = part.partner if x is part.at.partner else part.points
            assert route is not None
            own = network.jet(x, second, route.cover)
            if unknowns is not None:
                beside = unknowns.expand(len(x), -1)
                beside = torch.where(part.counted[:, None], beside, beside.detach())
                return append_unknowns(self._with_others(own, route), beside)
            return self._with_others(own, route)

        return jet

    def _with_others(self, own: Jet, route: Route) -> Jet:
        """Add what the networks of others give at the same points."""
        table = torch.cat([part.detach().flatten(1) for part in own], dim=1)
        into = {rank: table.new_empty(len(index), table.shape[1]) for rank, index in route.into.items()}
        self.share.ranks.swap({rank: table[index] for rank, index in route.out.items()}, into)
        if not into:
            return own
        more = torch.zeros_like(table)
        for rank, index in sorted(route.into.items()):
            more[index] += into[rank]
        widths = [part[0].numel() for part in own]
        shares = more.split(widths, dim=1)
        return Jet(*(part + other.reshape(part.shape) for part, other in zip(own, shares, strict=True)))


def divided(objective: Objective, field: nn.Module, share: Share) -> SharedObjective:
    """Share the points of an objective of a field of subdomains."""
    network = network_of(field)
    parts = {term.name: _part(term, objective.sets[term.name], network, share) for term in objective.terms}
    return SharedObjective(objective.terms, objective.sets, objective.weights, objective.watch, share, parts)


def undivided(objective: Objective) -> Objective:
    """Give the objective of all points again."""
    return Objective(objective.terms, objective.sets, objective.weights, objective.watch)


def _part(term: Term, at: PointSet, network: DecomposedField, share: Share) -> Part:
    """Take the points of a term that this process's networks hold, or whose partners they hold."""
    held = _held(network.cover(at.points), share)
    beyond = None if at.partner is None else _held(network.cover(at.partner), share)
    needed = held if beyond is None else held | beyond
    mine = torch.nonzero(needed[share.ranks.rank]).squeeze(1)
    chosen = at.taken(mine)
    counted = needed.int().argmax(dim=0)[mine] == share.ranks.rank
    partner = None
    if beyond is not None:
        assert chosen.partner is not None
        partner = _route(chosen.partner, beyond, needed, network, share)
    return Part(chosen, counted, _route(chosen.points, held, needed, network, share), partner)


def _held(covered: Cover, share: Share) -> Tensor:
    """Tell which process's boxes hold which points, (processes, n)."""
    found = torch.zeros(share.ranks.size, covered.points, dtype=torch.bool)
    for group in covered.groups:
        found[share.owner[group.boxes][:, None].expand_as(group.index), group.index] = True
    return found


def _route(points: Tensor, held: Tensor, needed: Tensor, network: DecomposedField, share: Share) -> Route:
    """Find what is told and heard at the points that are ``needed`` here, of what is ``held`` by whom (processes, n)."""
    here = share.ranks.rank
    place = needed[here].cumsum(0) - 1  # of a point of all among those of this process
    out, into = {}, {}
    for rank in range(share.ranks.size):
        told, heard = held[here] & needed[rank], held[rank] & needed[here]
        if rank != here and bool(told.any()):
            out[rank] = place[told]
        if rank != here and bool(heard.any()):
            into[rank] = place[heard]
    whole = network.cover(points)
    groups = []
    for group in whole.groups:
        own = share.owner[group.boxes] == here
        if bool(own.any()):
            groups.append(type(group)(*(getattr(group, f.name)[own] for f in dataclasses.fields(group))))
    return Route(Cover(whole.points, tuple(groups)), out, into)


def collected(state: Any, share: Share) -> Any:
    """Put what processes know of their own subdomains together, in a tree of dictionaries with tensors (E, ...)."""
    if isinstance(state, dict):
        return {name: collected(value, share) for name, value in state.items()}
    return share.whole(state) if isinstance(state, Tensor) and share.divides(state) else state


def collect(field: nn.Module, share: Share) -> None:
    """Put the networks of all processes into the field of each."""
    with torch.no_grad():
        for parameter in field.parameters():
            if share.divides(parameter):
                parameter.copy_(share.whole(parameter.detach()))
