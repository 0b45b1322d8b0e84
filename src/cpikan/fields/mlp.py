"""MLP: dense layers with a smooth activation between them, the network that physics-informed learning began with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from cpikan.fields.activations import AFTER_TANH, activation_named
from cpikan.fields.layered import START, ChainField, Domain, Start
from cpikan.fields.linear_layer import LinearLayer


class MLP(ChainField):
    """u(x) = layer(f(layer(... scaled x))), f tanh, silu, gelu or softplus; jets by the same streams as a Chebyshev network.

    ``widths`` are the nodes from the coordinates to the outputs, ``domain`` the box in physical units, [-1, 1] per axis by
    default; with ``networks`` = N the module holds N independent fields. The start keeps the variance of the sums at about
    1. Raises InputError for widths below 1, an empty box and an activation that is not there. Raissi, Perdikaris and
    Karniadakis (2019).
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str = "tanh",
        domain: Domain | None = None,
        *,
        networks: int | None = None,
        start: Start | None = START,
    ) -> None:
        super().__init__(widths, domain, networks)
        self.between = activation_named(activation)
        self.layers = nn.ModuleList(LinearLayer(a, b, networks) for a, b in itertools.pairwise(self.widths))
        if start is not None:
            self.restart(start)

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew; scaled coordinates have mean square 1/3."""
        generator = np.random.default_rng(start.seed)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, LinearLayer)
            layer.start(generator, AFTER_TANH if number else 1 / 3)

    def config(self) -> dict[str, Any]:
        """What is needed to build the field again, without its parameters."""
        return {**super().config(), "activation": self.between.name}
