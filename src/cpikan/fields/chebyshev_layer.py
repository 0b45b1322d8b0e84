"""ChebyshevLayer: y_o = b_o + sum over i, k of c_(i,k,o) T_k(x_i), one matrix product for values and derivatives."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields import chebyshev
from cpikan.fields.basis_layer import BasisLayer, Inputs
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

    def start(self, generator: np.random.Generator, inputs: Inputs, decay: float) -> None:
        """Draw coefficients that give every output variance 1 over points and draws.

        Independent coefficients of variance v_k give an output
        variance of v_0 + inputs * sum v_k E[T_k^2]; degree k gets the share (1 + k)^-decay of it, so higher degrees,
        which oscillate faster, weigh less; the constant has the share of k = 0.
        """
        share = (1.0 + np.arange(self.degree + 1)) ** -decay
        share /= share.sum()
        deviation = np.sqrt(share[1:] / (self.inputs * inputs.chebyshev(self.degree)))
        rows = np.repeat(deviation, self.inputs)[:, None]
        drawn = generator.standard_normal(tuple(self.weight.shape)) * rows
        self.draw(drawn, generator.standard_normal(tuple(self.bias.shape)) * math.sqrt(share[0]))
