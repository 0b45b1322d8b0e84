"""SeparableCKAN: sums of products of functions of one coordinate each, every one a small Chebyshev network."""

from __future__ import annotations

import itertools
import math
from functools import reduce
from typing import Unpack

import numpy as np
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields import layered
from cpikan.fields.activations import TANH
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import Degrees, Held, LayeredField, Through, Widths
from cpikan.fields.linear_layer import LinearLayer
from cpikan.fields.protocol import Second
from cpikan.fields.scaling import Domain
from cpikan.fields.start import Inputs, Start
from cpikan.fields.streams import Streams, along_axis

PRODUCTS = Inputs(np.ones, np.ones)  # of factors of variance 1


class SeparableCKAN(LayeredField):
    """u(x) = b + sum over r of w_r prod over axes a of f_(a,r)(x_a), r = 1 ... rank.

    ``widths`` are [d, hidden ..., outputs]: each axis has its own Chebyshev network [1, hidden ..., rank], whose last sums
    are the f_(a,r). Exact for solutions of low rank, such as products of sines, at a small cost in many dimensions; not
    for ridges across the axes. ``domain`` and ``networks`` as in ``ScaledCPIKAN``. Raises InputError for widths, a degree
    or a rank below 1 and for an empty box. Cho et al., SPINN (2023).
    """

    takes_nodes = False  # a factor is differentiated by its one coordinate
    settings = ("degree", "rank")

    def __init__(
        self, widths: Widths, degree: Degrees = 5, domain: Domain = None, *, rank: int = 8, **held: Unpack[Held]
    ) -> None:
        if rank < 1:
            raise InputError(f"rank {rank}: give at least 1")
        self.degree, self.rank = layered.checked_degrees(degree, len(widths) - 1), rank
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the Chebyshev layers of every axis, and the weights of the products."""
        nodes = [1, *self.widths[1:-1], self.rank]
        self.axes = nn.ModuleList(
            nn.ModuleList(
                ChebyshevLayer(a, b, k, networks)
                for (a, b), k in zip(itertools.pairwise(nodes), self.degree, strict=True)
            )
            for _ in range(self.dimension)
        )
        self.output = LinearLayer(self.rank, self.outputs, networks)

    @property
    def output_layer(self) -> BasisLayer:
        """Return the layer of the products' weights."""
        return self.output

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew: factors and their products of variance 1."""
        generator = np.random.default_rng(start.seed)
        for layers in self._factors():
            layered.start_layers(layers, start, generator)
        self.output.start(generator, PRODUCTS, start)

    def _factors(self) -> list[list[ChebyshevLayer]]:
        """List the layers of every axis."""
        return [
            [layer for layer in layers if isinstance(layer, ChebyshevLayer)]
            for layers in self.axes
            if isinstance(layers, nn.ModuleList)
        ]

    def _body(self, scaled: Tensor) -> Tensor:
        factors = []
        for axis, layers in enumerate(self._factors()):
            factors.append(layers[-1](layered.chain(layers[:-1], TANH, scaled[..., axis : axis + 1])))
        return math.prod(factors[1:], start=factors[0])

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        kind: Second = "none" if scaled.kind == "none" else "axes"
        factors = []
        for axis, layers in enumerate(self._factors()):
            own = slice(axis, axis + 1)
            first = scaled.first[..., own, :, own]
            none = first if kind == "axes" else first[..., :0, :, :]
            alone = Streams(scaled.value[..., own], first, none * 0, kind)  # scaling is affine: no second derivative
            factor = through(layers[-1], layered.chain_streams(layers[:-1], TANH, alone, through))
            factors.append(along_axis(factor, axis, self.dimension, scaled.kind))
        return reduce(Streams.times, factors)
