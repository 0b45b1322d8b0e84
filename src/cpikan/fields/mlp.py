"""MLP: dense layers with a smooth activation between them, the network that physics-informed learning began with."""

from __future__ import annotations

import itertools
from typing import Unpack

from torch import nn

from cpikan.fields.activations import activation_named
from cpikan.fields.layered import ChainField, Held, Widths
from cpikan.fields.linear_layer import LinearLayer
from cpikan.fields.scaling import Domain


class DenseField(ChainField):
    """A field of dense layers with an activation between them."""

    def build(self, networks: int | None) -> None:
        """Make the dense layers."""
        self.layers = nn.ModuleList(LinearLayer(a, b, networks) for a, b in itertools.pairwise(self.widths))


class MLP(DenseField):
    """u(x) = layer(f(layer(... scaled x))), f tanh, silu, gelu or softplus; jets by the same streams as a Chebyshev network.

    ``widths`` are the nodes from the coordinates to the outputs, ``domain`` the box in physical units, [-1, 1] per axis by
    default; with ``networks`` = N the module holds N independent fields. The start keeps the variance of the sums at about
    1. Raises InputError for widths below 1, an empty box and an activation that is not there. Raissi, Perdikaris and
    Karniadakis (2019).
    """

    settings = ("activation",)

    def __init__(self, widths: Widths, activation: str = "tanh", domain: Domain = None, **held: Unpack[Held]) -> None:
        self.activation, self.between = activation, activation_named(activation)
        super().__init__(widths, domain, **held)
