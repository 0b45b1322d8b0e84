"""ScaledCPIKAN: affine scaling, then Chebyshev layers with tanh between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from cpikan.fields import chebyshev
from cpikan.fields.activations import TANH
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.fused_jet import fused_jet, wins
from cpikan.fields.layered import START, ChainField, Domain, Start, checked_degrees
from cpikan.fields.streams import Streams

__all__ = ["ScaledCPIKAN", "Start"]


class ScaledCPIKAN(ChainField):
    """A Chebyshev physics-informed KAN on a physical box: u(x) = layer(tanh(layer(... scaled x))).

    ``widths`` are the nodes from the coordinates to the outputs, such as [2, 8, 8, 1]; ``degree`` is one number or one
    per layer; ``domain`` is the box (lower, upper) in physical units, by default [-1, 1] per axis. With ``networks`` = N
    the module holds N independent fields, one product per layer for all; the box may then have one row per field, and
    points are (N, ..., d), or (1, ..., d) for the same points in all. Parameters are float64 until ``.to(dtype)``.

    The start gives every layer's output variance 1 over points uniform in the box. A field is a function of the
    parameters without state, so ``torch.func`` and ``torch.compile`` take it as it is. Raises InputError for widths or a
    degree below 1 and for an empty box. Mostajeran and Faroughi, arXiv 2501.02762.
    """

    between = TANH

    def __init__(
        self,
        widths: Sequence[int],
        degree: int | Sequence[int] = 5,
        domain: Domain | None = None,
        *,
        networks: int | None = None,
        start: Start | None = START,
    ) -> None:
        super().__init__(widths, domain, networks)
        self._degrees = checked_degrees(degree, len(self.widths) - 1)
        self.layers = nn.ModuleList(
            ChebyshevLayer(a, b, k, networks)
            for (a, b), k in zip(itertools.pairwise(self.widths), self._degrees, strict=True)
        )
        if start is not None:
            self.restart(start)

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew, variance-preserving: equal draws for equal seeds, whatever the precision."""
        generator = np.random.default_rng(start.seed)
        for number, layer in enumerate(self.chebyshev_layers()):
            moments = chebyshev.mean_squares_after_tanh if number else chebyshev.mean_squares_uniform
            layer.start(moments(layer.degree), start.decay, generator)

    def config(self) -> dict[str, Any]:
        """What is needed to build the field again, without its parameters."""
        return {**super().config(), "degree": list(self._degrees)}

    def chebyshev_layers(self) -> list[ChebyshevLayer]:
        """The layers from the coordinates to the outputs."""
        return [layer for layer in self.layers if isinstance(layer, ChebyshevLayer)]

    def _jet_streams(self, streams: Streams) -> Streams:
        layers = self.chebyshev_layers()
        return fused_jet(streams, layers) if wins(streams, layers) else super()._jet_streams(streams)
