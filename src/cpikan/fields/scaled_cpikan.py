"""ScaledCPIKAN: affine scaling, then Chebyshev layers with tanh between them."""

from __future__ import annotations

import itertools

from torch import nn

from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.fused_jet import fused_jet, wins
from cpikan.fields.layered import START, ChainField, Degrees, Start, Widths, checked_degrees
from cpikan.fields.scaling import Domain
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

    settings = ("degree",)

    def __init__(
        self,
        widths: Widths,
        degree: Degrees = 5,
        domain: Domain = None,
        *,
        networks: int | None = None,
        start: Start | None = START,
    ) -> None:
        self.degree = checked_degrees(degree, len(widths) - 1)
        super().__init__(widths, domain, networks, start)

    def build(self, networks: int | None) -> None:
        """Make the Chebyshev layers."""
        pairs = zip(itertools.pairwise(self.widths), self.degree, strict=True)
        self.layers = nn.ModuleList(ChebyshevLayer(a, b, k, networks) for (a, b), k in pairs)

    def chebyshev_layers(self) -> list[ChebyshevLayer]:
        """List the layers from the coordinates to the outputs."""
        return [layer for layer in self.layers if isinstance(layer, ChebyshevLayer)]

    def _jet_streams(self, streams: Streams) -> Streams:
        layers = self.chebyshev_layers()
        return fused_jet(streams, layers) if wins(streams, layers) else super()._jet_streams(streams)
