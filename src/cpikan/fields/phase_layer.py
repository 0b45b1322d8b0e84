"""PhaseLayer: phases 2 pi x B of coordinates, whose frequencies are learned or stay as they were drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cpikan.fields.duals import cut
from cpikan.fields.layer import Layer, Tape, leaf
from cpikan.fields.streams import Streams


class PhaseLayer(Layer):
    """``frequencies`` B (d, m) in cycles per unit: parameters with ``trained`` (a leading N for N networks), else a buffer."""

    frequencies: Tensor

    def __init__(self, inputs: int, phases: int, trained: bool, networks: int | None = None) -> None:
        super().__init__()
        self._trained = trained
        lead = () if networks is None else (networks,)
        if trained:
            self.frequencies = nn.Parameter(torch.zeros(*lead, inputs, phases, dtype=torch.float64))
        else:  # three axes: rows of a table would be taken for one box per network
            self.register_buffer("frequencies", torch.zeros(1, inputs, phases, dtype=torch.float64))

    @property
    def weight(self) -> Tensor:
        """Return 2 pi B, (..., d, m)."""
        return 2 * math.pi * (self.frequencies if self._trained else self.frequencies[0])

    def forward(self, x: Tensor) -> Tensor:
        """Compute phases (..., B, m) of coordinates (..., B, d)."""
        return x @ self.weight

    def streams(self, x: Streams) -> Streams:
        """Compute phases with their derivatives."""
        return x.mapped(lambda part: part @ self.weight.unsqueeze(-3))

    def taped(self, x: Streams) -> tuple[Streams, Tape]:
        """Compute phases as ``streams``; a frequency answers with 2 pi of its coordinate, summed over streams."""
        joined = x.join()
        z = leaf(joined @ self.weight.detach())
        kept = 2 * math.pi * cut(joined)

        def columns(pushes: Sequence[Tensor]) -> Tensor:
            return torch.einsum("sbd,sbm->bdm", kept, pushes[0]).flatten(1)

        return x.split(z), Tape((z,), columns)
