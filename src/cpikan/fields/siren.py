"""Siren: dense layers with sines between them, started so that frequencies neither die nor explode with depth."""

from __future__ import annotations

import math
from typing import Unpack

import numpy as np

from cpikan.errors import NUMBER, InputError, check_type
from cpikan.fields.activations import sine
from cpikan.fields.layered import Held, Start, Widths
from cpikan.fields.mlp import DenseField
from cpikan.fields.scaling import Domain


class Siren(DenseField):
    """u(x) = layer(sin(w layer(... scaled x))) with frequency ``frequency`` = w in every hidden layer.

    Sitzmann et al. (2020), section 3.2 and theirs of the supplement: weights of the first layer are uniform within
    1 / inputs, those after it within sqrt(6 / inputs) / w, constants within 1 / sqrt(inputs). They use w = 30 for images;
    solutions of equations have fewer waves across the box, and second derivatives grow like w squared, hence 6 here.
    Shapes and ``networks`` as in ``MLP``. Raises InputError for widths below 1, an empty box and a frequency that is not
    positive.
    """

    settings = ("frequency",)

    def __init__(self, widths: Widths, frequency: float = 6.0, domain: Domain = None, **held: Unpack[Held]) -> None:
        check_type("frequency", frequency, NUMBER, "a positive number, 1 to 30")
        if not (frequency > 0 and math.isfinite(frequency)):
            raise InputError(f"frequency {frequency} of a SIREN: give a positive number, 1 to 30")
        self.frequency, self.between = float(frequency), sine(float(frequency))
        super().__init__(widths, domain, **held)

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew, uniform within bounds."""
        generator = np.random.default_rng(start.seed)
        for number, layer in enumerate(self.chain()):
            bound = math.sqrt(6 / layer.inputs) / self.frequency if number else 1 / layer.inputs
            weight = generator.uniform(-bound, bound, tuple(layer.weight.shape))
            most = 1 / math.sqrt(layer.inputs)
            layer.draw(weight, generator.uniform(-most, most, tuple(layer.bias.shape)))
