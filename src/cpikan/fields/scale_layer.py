"""ScaleLayer: y = s x, one factor for all nodes or one each: gates of residual networks, slopes of activations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cpikan.fields.duals import cut
from cpikan.fields.layer import Layer, Tape, leaf
from cpikan.fields.streams import Streams


class ScaleLayer(Layer):
    """A factor ``scale`` (1,) for all nodes, or (nodes,) for each its own, with a leading N for N networks."""

    def __init__(self, factors: int = 1, networks: int | None = None) -> None:
        super().__init__()
        lead = () if networks is None else (networks,)
        self.scale = nn.Parameter(torch.zeros(*lead, factors, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply values (..., B, n)."""
        return x * self.scale.unsqueeze(-2)

    def streams(self, x: Streams) -> Streams:
        """Multiply the value and every derivative."""
        return x.mapped(lambda part: part * self.scale[..., None, None, :])

    def taped(self, x: Streams) -> tuple[Streams, Tape]:
        """Multiply as ``streams``; a factor answers with what entered, summed over streams and over its nodes."""
        joined = x.join()
        out = leaf(joined * self.scale.detach().clone())  # that may be written to before the pass back
        kept, factors = cut(joined), self.scale.shape[-1]

        def columns(pushes: Sequence[Tensor]) -> Tensor:
            found = (pushes[0] * kept).sum(dim=0)
            return found.sum(dim=-1, keepdim=True) if factors == 1 else found

        return x.split(out), Tape((out,), columns)

    @torch.no_grad()
    def fill(self, value: float) -> None:
        """Give all factors one value."""
        self.scale.fill_(value)
