"""LinearLayer: y = b + x W, the basis being the nodes themselves."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.start import Inputs, Start, slope_gain, variances
from cpikan.fields.streams import Streams

_WEIGHTS = 0.8  # of the variance


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

    def start(self, generator: np.random.Generator, inputs: Inputs, start: Start) -> None:
        """Draw normal weights that give every output variance 1, a fifth of it the constant; there is no degree to decay.

        A constant moves the nodes' turning points over the box, as the T_0 of a Chebyshev layer does. At the critical
        start of a hidden layer it has what weights that keep slopes leave, 1 - E[x^2] / E[slope^2].
        """
        weight = generator.standard_normal(tuple(self.weight.shape))
        bias = generator.standard_normal(tuple(self.bias.shape))
        if start.rule == "glorot":
            constant, each = variances(start, inputs, 1, (self.inputs, self.outputs))
        else:
            critical = start.rule == "critical" and inputs.hidden
            share = 1 / slope_gain(np.ones(2), inputs) if critical else _WEIGHTS
            constant, each = 1 - share, share / (self.inputs * inputs.squares(1)[0])
        self.draw(weight * each**0.5, bias * constant**0.5)
