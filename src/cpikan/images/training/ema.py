"""The running mean of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Weights averaged over steps, w <- d w + (1 - d) now, with d growing to ``decay`` as (1 + n) / (10 + n): a mean over
    the steps so far while they are few (as Polyak & Juditsky, SIAM J. Control Optim. 30, 838 (1992), average all)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Average the weights after a step in."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, value in network.state_dict().items():
            mean = self.weights[name]
            if mean.is_floating_point() or mean.is_complex():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    @contextmanager
    def swapped_in(self, network: nn.Module) -> Iterator[None]:
        """Put the mean weights into the network while the block runs."""
        own = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.weights)
        try:
            yield
        finally:
            network.load_state_dict(own)

    def load(self, count: int, weights: dict[str, Tensor]) -> None:
        """Restore the mean from a kept state."""
        self.count = count
        for name, value in weights.items():
            self.weights[name].copy_(value)
