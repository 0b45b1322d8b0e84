"""LinearLayer: y = b + x W, the basis being the nodes themselves."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cpikan.fields.basis_layer import BasisLayer, Inputs
from cpikan.fields.streams import Streams


class LinearLayer(BasisLayer):
    """A dense layer; ``weight`` is (inputs, outputs), with a leading N for N networks."""

    def __init__(self, inputs: int, outputs: int, networks: int | None = None) -> None:
        super().__init__(inputs, outputs, inputs, networks)

    def basis(self, x: Tensor) -> Tensor:
        """Return the nodes."""
        return x

    def basis_streams(self, x: Streams) -> Streams:
        """Return the nodes with their derivatives."""
        return x

    def start(self, generator: np.random.Generator, inputs: Inputs, decay: float) -> None:
        """Draw normal weights that give every output variance 1, a fifth of it the constant; there is no degree to ``decay``.

        A constant moves the nodes' turning points over the box, as the T_0 of a Chebyshev layer does.
        """
        weight = generator.standard_normal(tuple(self.weight.shape))
        bias = generator.standard_normal(tuple(self.bias.shape))
        self.draw(weight * (0.8 / (self.inputs * inputs.mean_square)) ** 0.5, bias * 0.2**0.5)
