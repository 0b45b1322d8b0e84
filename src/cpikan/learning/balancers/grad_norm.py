"""GradNorm: weighted gradients that are equally long, but for terms that are learned more slowly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.balancers.term_balancer import (
    Shares,
    TermBalancer,
    felt,
    losses,
    named,
    normalised,
    present_shares,
    unnamed,
)
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective
from cpikan.learning.unknowns import network_of


@dataclass(frozen=True)
class GradNorm(TermBalancer):
    """Make the norms of w_i grad_W L_i proportional to r_i^alpha, with W the last layer and weights of the sum m.

    r_i is L_i / L_i(0) relative to its mean over terms. Chen, Badrinarayanan, Lee and Rabinovich (2018) descend
    sum |norm_i - mean norm r_i^alpha| by w; its minimum is written down at once here, and log w goes a part ``rate`` of the
    way, as their descent needs a rate that fits the size of losses. A term without a gradient keeps its weight.
    """

    alpha: float = 1.5
    rate: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1 or not self.alpha >= 0:
            raise InputError(f"GradNorm of alpha {self.alpha} and rate {self.rate}: give 0 or more, and 0 < rate <= 1")

    def shares(self, plain: Objective, field: nn.Module, state: State) -> tuple[Shares, State]:
        """Compare the norms of gradients by the last layer, and losses with those at the start."""
        sizes, now, before = last_layer_norms(plain, field), losses(plain, field), present_shares(plain, state)
        first = unnamed(plain, state["losses"]) if "losses" in state else now
        ratio = now / first.clamp_min(1e-12 * float(first.max()) + 1e-300)
        pace = (ratio / ratio.mean().clamp_min(1e-300)).clamp(1e-3, 1e3) ** self.alpha
        known = felt(sizes)
        goal = torch.where(known, pace / sizes.clamp_min(1e-300), before)
        if bool(known.any()):  # weights that are kept stay as they are beside the mean of the others
            goal = torch.where(known, goal / goal[known].mean() * before[known].mean(), before)
        rate = self.rate if "shares" in state else 1.0
        found = normalised(before ** (1 - rate) * goal**rate)
        return named(plain, found), {"losses": named(plain, first)}


def last_layer_norms(objective: Objective, field: nn.Module) -> Tensor:
    """Measure the gradient of every term's cost by the last layer of the network, (m,)."""
    layer, found = last_layer(field), []
    for term in objective.terms:
        with torch.enable_grad():
            cost = objective.only(term.name).cost(field)
            parts = torch.autograd.grad(cost, layer, allow_unused=True, materialize_grads=True)
        found.append(torch.cat([part.flatten() for part in parts]).norm())
    return torch.stack(found).cpu()


def last_layer(field: nn.Module) -> list[nn.Parameter]:
    """List the parameters of the layer that all terms share last; of a network without layers the last parameter."""
    network = network_of(field)
    layer = getattr(network, "output_layer", None)
    return list(layer.parameters()) if isinstance(layer, nn.Module) else list(network.parameters())[-1:]
