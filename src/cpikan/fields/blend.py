"""BlendField: a Chebyshev network and a dense one with a learned gate between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.fields import chebyshev
from cpikan.fields.activations import AFTER_TANH, TANH
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import START, Domain, LayeredField, Start, Through, chain, chain_streams, checked_degrees
from cpikan.fields.linear_layer import LinearLayer
from cpikan.fields.streams import Streams, side_by_side


class BlendField(LayeredField):
    """u(x) = g(x) KAN(x) + (1 - g(x)) MLP(x) with a gate g = sigmoid(a . x^ + c) that is learned with both.

    Both have the hidden ``widths``, tanh between layers; ``degree`` is that of the Chebyshev edges. The two are linear in
    their last layers, and so is the blend: its features are g T_k(nodes), g, (1 - g) nodes and a constant. The gate starts
    at 1/2 everywhere. ``domain`` and ``networks`` as in ``ScaledCPIKAN``. Raises InputError for widths or a degree below 1
    and for an empty box.
    """

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
        hidden = list(itertools.pairwise(self.widths[:-1]))
        pairs = zip(hidden, self._degrees, strict=False)
        self.kan = nn.ModuleList(ChebyshevLayer(a, b, k, networks) for (a, b), k in pairs)
        self.mlp = nn.ModuleList(LinearLayer(a, b, networks) for a, b in hidden)
        self.gate = LinearLayer(self.dimension, 1, networks)
        last = ChebyshevLayer(self.widths[-2], self.outputs, self._degrees[-1], networks)
        self.output = LinearLayer(last.weight.shape[-2] + 1 + self.widths[-2], self.outputs, networks)
        if start is not None:
            self.restart(start)

    @property
    def output_layer(self) -> BasisLayer:
        """The last layers of both."""
        return self.output

    @torch.no_grad()
    def restart(self, start: Start) -> None:
        """Draw all coefficients anew, each network's as if it were alone; the gate is open half."""
        generator = np.random.default_rng(start.seed)
        kan = ChebyshevLayer(self.widths[-2], self.outputs, self._degrees[-1], self.networks)
        mlp = LinearLayer(self.widths[-2], self.outputs, self.networks)
        for number, layer in enumerate([*self.kan, kan]):
            assert isinstance(layer, ChebyshevLayer)
            moments = chebyshev.mean_squares_after_tanh if number else chebyshev.mean_squares_uniform
            layer.start(moments(layer.degree), start.decay, generator)
        for number, layer in enumerate([*self.mlp, mlp]):
            assert isinstance(layer, LinearLayer)
            layer.start(generator, AFTER_TANH if number else 1 / 3)
        step = (kan.bias - mlp.bias).unsqueeze(-2)  # g c + (1 - g) b = b + g (c - b)
        self.output.draw(torch.cat([kan.weight, step, mlp.weight], dim=-2).numpy(), mlp.bias.numpy())
        self.gate.weight.zero_()
        self.gate.bias.zero_()

    def config(self) -> dict[str, Any]:
        """What is needed to build the field again, without its parameters."""
        return {**super().config(), "degree": list(self._degrees)}

    def _layers(self) -> tuple[list[BasisLayer], list[BasisLayer]]:
        """The hidden layers of both."""
        kan, mlp = ([layer for layer in part if isinstance(layer, BasisLayer)] for part in (self.kan, self.mlp))
        return kan, mlp

    def _body(self, scaled: Tensor) -> Tensor:
        kan, mlp = self._layers()
        g = torch.sigmoid(self.gate(scaled))
        basis = chebyshev.polynomials(chain(kan, TANH, scaled), self._degrees[-1]).flatten(-2)
        return torch.cat([g * basis, g, (1 - g) * chain(mlp, TANH, scaled)], dim=-1)

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        kan, mlp = self._layers()
        z = through(self.gate, scaled)
        s = torch.sigmoid(z.value)
        s1 = s * (1 - s)
        s2 = s1 * (1 - 2 * s)
        gate, rest = z.through(s, s1, s2), z.through(1 - s, -s1, -s2)
        nodes = chain_streams(kan, TANH, scaled, through)
        jet = chebyshev.polynomials_jet(nodes.value, self._degrees[-1], second=nodes.kind != "none")
        basis = nodes.expanded(*jet)
        return side_by_side([gate.times(basis), gate, rest.times(chain_streams(mlp, TANH, scaled, through))])
