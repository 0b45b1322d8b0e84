"""GatedCKAN: blocks of two Chebyshev layers that choose, node by node, between two views of the input."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from cpikan.fields.activations import TANH
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import Through
from cpikan.fields.residual_ckan import SkippingField, after_tanh, mixed
from cpikan.fields.scale_layer import ScaleLayer
from cpikan.fields.start import AFTER_TANH, Start
from cpikan.fields.streams import Streams


class GatedBlock(nn.Module):
    """Two layers with their skips: ``inside`` between them, open at first, and ``skip`` around both."""

    def __init__(self, width: int, degree: int, networks: int | None) -> None:
        super().__init__()
        self.one, self.two = (ChebyshevLayer(width, width, degree, networks) for _ in range(2))
        self.inside, self.skip = ScaleLayer(1, networks), ScaleLayer(1, networks)

    def forward(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Pass nodes through, between the views u and v."""
        f = v + self.one(TANH.value(z)) * (u - v)
        f = z + self.inside(f - z)
        f = v + self.two(TANH.value(f)) * (u - v)
        return z + self.skip(f - z)

    def streams(self, z: Streams, v: Streams, apart: Streams, through: Through) -> Streams:
        """Pass streams through; ``apart`` is u - v."""
        f = v.plus(through(self.one, after_tanh(z)).times(apart))
        f = mixed(self.inside, f, z, through)
        f = v.plus(through(self.two, after_tanh(f)).times(apart))
        return mixed(self.skip, f, z, through)


class GatedCKAN(SkippingField):
    """u(x) = layer(tanh z), z = layer(scaled x) at first, and in every block, with views u, v = layers(tanh z_1),

        f = z + b (v + layer(tanh z) (u - v) - z),    z <- z + a (v + layer(tanh f) (u - v) - z).

    a begins at ``gate`` = 0 and b at 1, so the network begins as its first and last layer, to the bit. ``widths`` are
    [d, n, ..., n, outputs]: every hidden layer behind the first one is a block of two layers. ``degree``, one or one per
    width as in ``ScaledCPIKAN``; that of the first block is also that of the views. Raises InputError as `ResidualCKAN`.
    Rigas, Anagnostopoulos, Papachristou and Alexandridis, arXiv 2510.23501 (residual-gated adaptive KANs), without their
    basis of sines in front.
    """

    def build(self, networks: int | None) -> None:
        """Make the first layer, the two views, the blocks and the last layer."""
        super().build(networks)
        width, inner = self.widths[-2], self.degree[1:-1]
        self.views = nn.ModuleList(ChebyshevLayer(width, width, k, networks) for k in 2 * inner[:1])
        self.blocks = nn.ModuleList(GatedBlock(width, k, networks) for k in inner)

    def restart_skipped(self, generator: np.random.Generator, start: Start) -> None:
        """Draw views and blocks."""
        for layer in self._views():
            layer.start(generator, AFTER_TANH, start)
        for block in self._blocks():
            for layer in (block.one, block.two):
                layer.start(generator, AFTER_TANH, start)
            block.inside.fill(1.0)
            block.skip.fill(self.gate)

    def _views(self) -> list[ChebyshevLayer]:
        return [layer for layer in self.views if isinstance(layer, ChebyshevLayer)]

    def _blocks(self) -> list[GatedBlock]:
        return [block for block in self.blocks if isinstance(block, GatedBlock)]

    def _body(self, scaled: Tensor) -> Tensor:
        z = self.first(scaled)
        views = [view(TANH.value(z)) for view in self._views()]
        for block in self._blocks():
            z = block(z, *views)
        return TANH.value(z)

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        z = through(self.first, scaled)
        entered = after_tanh(z)
        views = [through(view, entered) for view in self._views()]
        for block in self._blocks():
            z = block.streams(z, views[1], views[0].plus(views[1], -1.0), through)
        return after_tanh(z)
