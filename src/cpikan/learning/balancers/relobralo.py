"""ReLoBRaLo: more weight for what has fallen least, since the start or since the last look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.balancers.mean_squares import MeanSquares
from cpikan.learning.balancers.term_balancer import (
    Shares,
    TermBalancer,
    losses,
    named,
    normalised,
    present_shares,
    unnamed,
)
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective


@dataclass(frozen=True)
class ReLoBRaLo(TermBalancer):
    """Follow the softmax of relative losses, with random looks back at the start.

    With b(t, t') = m softmax_i(L_i(t) / (T L_i(t'))) the shares are alpha (rho s + (1 - rho) b(t, 0)) + (1 - alpha) b(t, t-1),
    where rho is 0 or 1 with the mean ``lookback`` (Bischof and Kraus 2021). The shares know no scale of a loss, so they stand
    on the weights of `KernelTraces` at the start. ``alpha`` and ``lookback`` are the paper's 0.999 a step, over ten steps.
    """

    alpha: float = 0.99
    lookback: float = 0.99
    temperature: float = 1.0
    seed: int = 0
    start: ClassVar[MeanSquares] = KERNEL_TRACES

    def __post_init__(self) -> None:
        if not (0 <= self.alpha <= 1 and 0 <= self.lookback <= 1 and self.temperature > 0):
            raise InputError(
                f"ReLoBRaLo of alpha {self.alpha}, lookback {self.lookback}, temperature {self.temperature}: "
                "give two shares from 0 to 1, and more than 0"
            )

    def shares(self, plain: Objective, field: nn.Module, state: State) -> tuple[Shares, State]:
        """Compare losses with the last ones, and with the first."""
        now, looks = losses(plain, field), state.get("looks", 0)
        if not looks:
            kept = named(plain, now)
            return named(plain, torch.ones_like(now)), {"looks": 1, "first": kept, "last": kept}
        first, last, before = (
            unnamed(plain, state["first"]),
            unnamed(plain, state["last"]),
            present_shares(plain, state),
        )
        chance = torch.Generator().manual_seed(self.seed + 7919 * looks)
        rho = float(torch.rand((), generator=chance) < self.lookback)
        back = rho * before + (1 - rho) * self._balance(now, first)
        found = normalised(self.alpha * back + (1 - self.alpha) * self._balance(now, last))
        return named(plain, found), {"looks": looks + 1, "first": state["first"], "last": named(plain, now)}

    def _balance(self, now: Tensor, then: Tensor) -> Tensor:
        quotient = now / (self.temperature * then.clamp_min(1e-30 * float(then.max()) + 1e-300))
        return len(now) * torch.softmax(quotient, dim=0)
