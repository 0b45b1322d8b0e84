"""SoftAdapt: more weight for losses that rise, or fall least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from cpikan.errors import InputError
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.balancers.mean_squares import MeanSquares
from cpikan.learning.balancers.term_balancer import Shares, TermBalancer, losses, named, normalised, unnamed
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective


@dataclass(frozen=True)
class SoftAdapt(TermBalancer):
    """Take the softmax of ``beta`` times the rates of losses since the last look, normalised by the sum of their sizes.

    Heydari, Thompson and Mehmood, SoftAdapt (2019), the normalised form; ``by_loss`` multiplies by the losses themselves, its
    loss-weighted form. Rates are relative to the last losses, and the shares, of the sum m, stand on the weights of
    `KernelTraces` at the start, so that no scale of a loss matters.
    """

    beta: float = 0.1
    by_loss: bool = False
    start: ClassVar[MeanSquares] = KERNEL_TRACES

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise InputError(f"SoftAdapt of beta {self.beta}: give 0 or more")

    def shares(self, plain: Objective, field: nn.Module, state: State) -> tuple[Shares, State]:
        """Compare losses with the last ones."""
        now = losses(plain, field)
        last = unnamed(plain, state["last"]) if "last" in state else now
        rates = now / last.clamp_min(1e-30 * float(last.max()) + 1e-300) - 1
        found = torch.softmax(self.beta * rates / rates.abs().sum().clamp_min(1e-300), dim=0)
        if self.by_loss and "last" in state:
            found = found * now.clamp_min(1e-300)
        return named(plain, normalised(found)), {"last": named(plain, now)}
