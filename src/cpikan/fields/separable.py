"""SeparableCKAN: sums of products of functions of one coordinate each, every one a small Chebyshev network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields import chebyshev
from cpikan.fields.activations import TANH
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import START, Domain, LayeredField, Start, Through, chain, chain_streams, checked_degrees
from cpikan.fields.linear_layer import LinearLayer
from cpikan.fields.protocol import Second
from cpikan.fields.streams import Streams, along_axis


class SeparableCKAN(LayeredField):
    """u(x) = b + sum over r of w_r prod over axes a of f_(a,r)(x_a), r = 1 ... rank.

    ``widths`` are [d, hidden ..., outputs]: each axis has its own Chebyshev network [1, hidden ..., rank], whose last sums
    are the f_(a,r). Exact for solutions of low rank, such as products of sines, at a small cost in many dimensions; not
    for ridges across the axes. ``domain`` and ``networks`` as in ``ScaledCPIKAN``. Raises InputError for widths, a degree
    or a rank below 1 and for an empty box. Cho et al., SPINN (2023).
    """

    def __init__(
        self,
        widths: Sequence[int],
        degree: int | Sequence[int] = 5,
        domain: Domain | None = None,
        *,
        rank: int = 8,
        networks: int | None = None,
        start: Start | None = START,
    ) -> None:
        super().__init__(widths, domain, networks)
        if rank < 1:
            raise InputError(f"rank {rank}: give at least 1")
        self._degrees, self._rank = checked_degrees(degree, len(self.widths) - 1), rank
        nodes = [1, *self.widths[1:-1], rank]
        self.axes = nn.ModuleList(
            nn.ModuleList(
                ChebyshevLayer(a, b, k, networks)
                for (a, b), k in zip(itertools.pairwise(nodes), self._degrees, strict=True)
            )
            for _ in range(self.dimension)
        )
        self.output = LinearLayer(rank, self.outputs, networks)
        if start is not None:
            self.restart(start)

    @property
    def output_layer(self) -> BasisLayer:
        """The weights of the products."""
        return self.output

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew: factors and their products of variance 1."""
        generator = np.random.default_rng(start.seed)
        for layers in self._factors():
            for number, layer in enumerate(layers):
                moments = chebyshev.mean_squares_after_tanh if number else chebyshev.mean_squares_uniform
                layer.start(moments(layer.degree), start.decay, generator)
        self.output.start(generator)

    def config(self) -> dict[str, Any]:
        """What is needed to build the field again, without its parameters."""
        return {**super().config(), "degree": list(self._degrees), "rank": self._rank}

    def _factors(self) -> list[list[ChebyshevLayer]]:
        """The layers of every axis."""
        return [
            [layer for layer in layers if isinstance(layer, ChebyshevLayer)]
            for layers in self.axes
            if isinstance(layers, nn.ModuleList)
        ]

    def _body(self, scaled: Tensor) -> Tensor:
        factors = []
        for axis, layers in enumerate(self._factors()):
            factors.append(layers[-1](chain(layers[:-1], TANH, scaled[..., axis : axis + 1])))
        return math.prod(factors[1:], start=factors[0])

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        kind: Second = "none" if scaled.kind == "none" else "axes"
        factors = []
        for axis, layers in enumerate(self._factors()):
            own = slice(axis, axis + 1)
            first = scaled.first[..., own, :, own]
            none = first if kind == "axes" else first[..., :0, :, :]
            alone = Streams(scaled.value[..., own], first, none * 0, kind)  # scaling is affine: no second derivative
            factor = through(layers[-1], chain_streams(layers[:-1], TANH, alone, through))
            factors.append(along_axis(factor, axis, self.dimension, scaled.kind))
        return reduce(Streams.times, factors)
