"""BlendField: a Chebyshev network and a dense one with a learned gate between them."""

from __future__ import annotations

import itertools
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.fields import chebyshev, layered
from cpikan.fields.activations import TANH
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import Degrees, Held, LayeredField, Start, Through, Widths
from cpikan.fields.linear_layer import LinearLayer
from cpikan.fields.scaling import Domain
from cpikan.fields.streams import Streams, side_by_side


class BlendField(LayeredField):
    """u(x) = g(x) KAN(x) + (1 - g(x)) MLP(x) with a gate g = sigmoid(a . x^ + c) that is learned with both.

    Both have the hidden ``widths``, tanh between layers; ``degree`` is that of the Chebyshev edges. The two are linear in
    their last layers, and so is the blend: its features are g T_k(nodes), g, (1 - g) nodes and a constant. The gate starts
    at 1/2 everywhere. ``domain`` and ``networks`` as in ``ScaledCPIKAN``. Raises InputError for widths or a degree below 1
    and for an empty box.
    """

    settings = ("degree",)

    def __init__(self, widths: Widths, degree: Degrees = 5, domain: Domain = None, **held: Unpack[Held]) -> None:
        self.degree = layered.checked_degrees(degree, len(widths) - 1)
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the hidden layers of both, the gate and the last layers as one."""
        hidden = list(itertools.pairwise(self.widths[:-1]))
        pairs = zip(hidden, self.degree, strict=False)
        self.kan = nn.ModuleList(ChebyshevLayer(a, b, k, networks) for (a, b), k in pairs)
        self.mlp = nn.ModuleList(LinearLayer(a, b, networks) for a, b in hidden)
        self.gate = LinearLayer(self.dimension, 1, networks)
        last = ChebyshevLayer(self.widths[-2], self.outputs, self.degree[-1], networks)
        self.output = LinearLayer(last.weight.shape[-2] + 1 + self.widths[-2], self.outputs, networks)

    @property
    def output_layer(self) -> BasisLayer:
        """Return the last layers of both networks, which are one layer."""
        return self.output

    @torch.no_grad()
    def restart(self, start: Start) -> None:
        """Draw all coefficients anew, each network's as if it were alone; the gate is open half."""
        generator = np.random.default_rng(start.seed)
        kan = ChebyshevLayer(self.widths[-2], self.outputs, self.degree[-1], self.networks)
        mlp = LinearLayer(self.widths[-2], self.outputs, self.networks)
        for hidden, own in zip(self._layers(), (kan, mlp), strict=True):
            layered.start_layers([*hidden, own], start, generator)
        step = (kan.bias - mlp.bias).unsqueeze(-2)  # g c + (1 - g) b = b + g (c - b)
        self.output.draw(torch.cat([kan.weight, step, mlp.weight], dim=-2).numpy(), mlp.bias.numpy())
        self.gate.weight.zero_()
        self.gate.bias.zero_()

    def _layers(self) -> tuple[list[BasisLayer], list[BasisLayer]]:
        """List the hidden layers of both."""
        kan, mlp = ([layer for layer in part if isinstance(layer, BasisLayer)] for part in (self.kan, self.mlp))
        return kan, mlp

    def _body(self, scaled: Tensor) -> Tensor:
        kan, mlp = self._layers()
        g = torch.sigmoid(self.gate(scaled))
        basis = chebyshev.polynomials(layered.chain(kan, TANH, scaled), self.degree[-1]).flatten(-2)
        return torch.cat([g * basis, g, (1 - g) * layered.chain(mlp, TANH, scaled)], dim=-1)

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        kan, mlp = self._layers()
        z = through(self.gate, scaled)
        s = torch.sigmoid(z.value)
        s1 = s * (1 - s)
        s2 = s1 * (1 - 2 * s)
        gate, rest = z.through(s, s1, s2), z.through(1 - s, -s1, -s2)
        nodes = layered.chain_streams(kan, TANH, scaled, through)
        jet = chebyshev.polynomials_jet(nodes.value, self.degree[-1], second=nodes.kind != "none")
        basis = nodes.expanded(*jet)
        return side_by_side([gate.times(basis), gate, rest.times(layered.chain_streams(mlp, TANH, scaled, through))])
