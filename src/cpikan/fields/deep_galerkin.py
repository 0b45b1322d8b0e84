"""DeepGalerkinField: blocks with gates as in a recurrent network, each of which sees the point itself again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.fields.activations import TANH
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.layered import Held, LayeredField, Through, Widths
from cpikan.fields.linear_layer import LinearLayer
from cpikan.fields.residual_ckan import after_tanh, check_one_width
from cpikan.fields.scaling import Domain
from cpikan.fields.start import AFTER_TANH, UNIFORM, Start
from cpikan.fields.streams import Streams, side_by_side


class GalerkinBlock(nn.Module):
    """S <- (1 - G) H + Z S with the gates Z, G, R = tanh layer(x, S) and H = tanh layer(x, R S)."""

    def __init__(self, dimension: int, width: int, networks: int | None) -> None:
        super().__init__()
        self.gates = LinearLayer(dimension + width, 3 * width, networks)
        self.proposal = LinearLayer(dimension + width, width, networks)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Pass nodes (..., B, n) at scaled points through."""
        z, g, r = TANH.value(self.gates(_beside(x, s))).chunk(3, dim=-1)
        h = TANH.value(self.proposal(_beside(x, r * s)))
        return (1 - g) * h + z * s

    def streams(self, x: Streams, s: Streams, through: Through) -> Streams:
        """Pass nodes with their derivatives through."""
        gates = after_tanh(through(self.gates, _streams_beside(x, s)))
        z, g, r = (gates.mapped(part) for part in _thirds())
        h = after_tanh(through(self.proposal, _streams_beside(x, r.times(s))))
        return h.plus(g.times(h), -1.0).plus(z.times(s))


class DeepGalerkinField(LayeredField):
    """u(x) = layer(S), S = tanh layer(scaled x) at first, then through a block for every further hidden width.

    ``widths`` are [d, n, ..., n, outputs]. A block has as many parameters as four dense layers. With `FreshPoints` and a method
    that follows the gradient it is the deep Galerkin method. Raises InputError as `ResidualCKAN`. Sirignano and Spiliopoulos,
    J. Comput. Phys. 375, 1339 (2018), with n nodes where the paper has an own matrix for each gate: they are one layer here.
    """

    def __init__(self, widths: Widths, domain: Domain = None, **held: Unpack[Held]) -> None:
        check_one_width(widths)
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the first layer, the blocks and the last layer."""
        width = self.widths[-2]
        self.first = LinearLayer(self.dimension, width, networks)
        self.blocks = nn.ModuleList(GalerkinBlock(self.dimension, width, networks) for _ in self.widths[2:-1])
        self.output = LinearLayer(width, self.outputs, networks)

    @property
    def output_layer(self) -> BasisLayer:
        """Return the last layer."""
        return self.output

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew."""
        generator = np.random.default_rng(start.seed)
        self.first.start(generator, UNIFORM, start)
        for block in self._blocks():
            for layer in (block.gates, block.proposal):
                layer.start(generator, AFTER_TANH, start)
        self.output.start(generator, AFTER_TANH, start)

    def _blocks(self) -> list[GalerkinBlock]:
        return [block for block in self.blocks if isinstance(block, GalerkinBlock)]

    def _body(self, scaled: Tensor) -> Tensor:
        s = TANH.value(self.first(scaled))
        for block in self._blocks():
            s = block(scaled, s)
        return s

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        s = after_tanh(through(self.first, scaled))
        for block in self._blocks():
            s = block.streams(scaled, s, through)
        return s


def _beside(x: Tensor, s: Tensor) -> Tensor:
    """Put nodes behind the coordinates, for every network where points are those of all."""
    return torch.cat([x.expand(*s.shape[:-1], -1), s], dim=-1)


def _streams_beside(x: Streams, s: Streams) -> Streams:
    """Put nodes behind the coordinates, with their derivatives."""
    spread = (part.expand(*like.shape[:-1], -1) for part, like in zip(x[:3], s[:3], strict=True))
    value, first, second = spread
    return side_by_side([Streams(value, first, second, x.kind), s])


def _thirds() -> list[Callable[[Tensor], Tensor]]:
    return [lambda part, n=n: part.chunk(3, dim=-1)[n] for n in range(3)]  # type: ignore[misc]
