"""ChebyshevLayer: y_o = b_o + sum over i, k of c_(i,k,o) T_k(x_i), one matrix product for values and derivatives."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields import chebyshev
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.start import Inputs, Start, variances
from cpikan.fields.streams import Streams


class ChebyshevLayer(BasisLayer):
    """A Kolmogorov-Arnold layer whose edges are Chebyshev sums of one degree, for inputs in [-1, 1].

    ``weight`` is (degree * inputs, outputs), row (k - 1) * inputs + i belonging to T_k of input i, and ``bias``
    (outputs,) holds the constants: the T_0 of all edges into an output are the same function, so one is kept, which
    spans the same functions with a basis that is not degenerate. With ``networks`` = N both have a leading N and the
    product is one batched product. Mostajeran and Faroughi, arXiv 2501.02762; SynodicMonth, ChebyKAN (2024).
    """

    def __init__(self, inputs: int, outputs: int, degree: int, networks: int | None = None) -> None:
        if degree < 1:
            raise InputError(f"degree {degree} makes every edge constant: give at least 1")
        super().__init__(inputs, outputs, degree * inputs, networks)
        self.degree = degree

    def basis(self, x: Tensor) -> Tensor:
        """Evaluate T_1 ... T_K of every input, (..., B, degree * inputs), as the rows of ``weight`` are ordered."""
        return chebyshev.polynomials(x, self.degree).flatten(-2)

    def basis_streams(self, x: Streams) -> Streams:
        """Evaluate the basis with its derivatives: T'' u_a u_b + T' u_ab for every edge."""
        return x.expanded(*chebyshev.polynomials_jet(x.value, self.degree, second=x.kind != "none"))

    def start(self, generator: np.random.Generator, inputs: Inputs, start: Start) -> None:
        """Draw coefficients degree by degree (see ``variances``): higher degrees, which oscillate faster, weigh less."""
        found = np.sqrt(variances(start, inputs, self.degree, (self.inputs, self.outputs)))
        rows = np.repeat(found[1:], self.inputs)[:, None]
        drawn = generator.standard_normal(tuple(self.weight.shape)) * rows
        self.draw(drawn, generator.standard_normal(tuple(self.bias.shape)) * found[0])
