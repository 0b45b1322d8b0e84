"""Siren: dense layers with sines between them, started so that frequencies neither die nor explode with depth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from cpikan.errors import InputError
from cpikan.fields.activations import sine
from cpikan.fields.layered import START, ChainField, Domain, Start
from cpikan.fields.linear_layer import LinearLayer


class Siren(ChainField):
    """u(x) = layer(sin(w layer(... scaled x))) with frequency ``frequency`` = w in every hidden layer.

    Sitzmann et al. (2020), section 3.2 and theirs of the supplement: weights of the first layer are uniform within
    1 / inputs, those after it within sqrt(6 / inputs) / w, constants within 1 / sqrt(inputs). They use w = 30 for images;
    solutions of equations have fewer waves across the box, and second derivatives grow like w squared, hence 6 here.
    Shapes and ``networks`` as in ``MLP``. Raises InputError for widths below 1, an empty box and a frequency that is not
    positive.
    """

    def __init__(
        self,
        widths: Sequence[int],
        frequency: float = 6.0,
        domain: Domain | None = None,
        *,
        networks: int | None = None,
        start: Start | None = START,
    ) -> None:
        super().__init__(widths, domain, networks)
        if not (frequency > 0 and math.isfinite(frequency)):
            raise InputError(f"frequency {frequency} of a SIREN: give a positive number, 1 to 30")
        self._frequency, self.between = float(frequency), sine(float(frequency))
        self.layers = nn.ModuleList(LinearLayer(a, b, networks) for a, b in itertools.pairwise(self.widths))
        if start is not None:
            self.restart(start)

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew."""
        generator = np.random.default_rng(start.seed)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, LinearLayer)
            bound = math.sqrt(6 / layer.inputs) / self._frequency if number else 1 / layer.inputs
            layer.start_uniform(generator, bound, 1 / math.sqrt(layer.inputs))

    def config(self) -> dict[str, Any]:
        """What is needed to build the field again, without its parameters."""
        return {**super().config(), "frequency": self._frequency}
