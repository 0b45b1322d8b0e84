"""ChebyshevLayer: y_o = b_o + sum over i, k of c_(i,k,o) T_k(x_i), one matrix product for values and derivatives."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields import chebyshev
from cpikan.fields.streams import Streams


class ChebyshevLayer(nn.Module):
    """A Kolmogorov-Arnold layer whose edges are Chebyshev sums of one degree, for inputs in [-1, 1].

    ``weight`` is (degree * inputs, outputs), row (k - 1) * inputs + i belonging to T_k of input i, and ``bias``
    (outputs,) holds the constants: the T_0 of all edges into an output are the same function, so one is kept, which
    spans the same functions with a basis that is not degenerate. With ``networks`` = N both have a leading N and the
    product is one batched product. Mostajeran and Faroughi, arXiv 2501.02762; SynodicMonth, ChebyKAN (2024).
    """

    def __init__(self, inputs: int, outputs: int, degree: int, networks: int | None = None) -> None:
        super().__init__()
        if degree < 1:
            raise InputError(f"degree {degree} makes every edge constant: give at least 1")
        if inputs < 1 or outputs < 1:
            raise InputError(f"layer from {inputs} to {outputs} nodes: give at least one of each")
        self.inputs, self.outputs, self.degree = inputs, outputs, degree
        lead = () if networks is None else (networks,)
        self.weight = nn.Parameter(torch.zeros(*lead, degree * inputs, outputs, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(*lead, outputs, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Values (..., B, inputs) to (..., B, outputs); with N networks (N, B, inputs), or (1, B, inputs) for all."""
        return self._product(self.basis(x)) + self.bias.unsqueeze(-2)

    def streams(self, x: Streams) -> Streams:
        """A value with its derivatives through the layer, all streams in one product."""
        z = x.split(self._product(self.basis_streams(x).join()))
        return z._replace(value=z.value + self.bias.unsqueeze(-2).unsqueeze(-2))

    def basis(self, x: Tensor) -> Tensor:
        """T_1 ... T_K of every input, (..., B, degree * inputs), as the rows of ``weight`` are ordered."""
        return chebyshev.polynomials(x, self.degree).flatten(-2)

    def basis_streams(self, x: Streams) -> Streams:
        """The basis with its derivatives: T'' u_a u_b + T' u_ab for every edge."""
        t, t1, t2 = chebyshev.polynomials_jet(x.value, self.degree, second=x.kind != "none")
        first = (t1 * x.first.unsqueeze(-2)).flatten(-2)
        if x.kind == "none":
            second = first[..., :0, :, :]
        else:
            second = (t2 * x.squares().unsqueeze(-2) + t1 * x.second.unsqueeze(-2)).flatten(-2)
        return Streams(t.flatten(-2), first, second, x.kind)

    def start(self, moments: np.ndarray, decay: float, generator: np.random.Generator) -> None:
        """Draw coefficients that give every output variance 1 over points and draws.

        ``moments`` (degree,) are E[T_k(x)^2] of the inputs. Independent coefficients of variance v_k give an output
        variance of v_0 + inputs * sum v_k E[T_k^2]; degree k gets the share (1 + k)^-decay of it, so higher degrees,
        which oscillate faster, weigh less; the constant has the share of k = 0.
        """
        share = (1.0 + np.arange(self.degree + 1)) ** -decay
        share /= share.sum()
        deviation = np.sqrt(share[1:] / (self.inputs * np.asarray(moments)))
        rows = np.repeat(deviation, self.inputs)[:, None]
        drawn = generator.standard_normal(tuple(self.weight.shape)) * rows
        constant = generator.standard_normal(tuple(self.bias.shape)) * math.sqrt(share[0])
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(drawn))
            self.bias.copy_(torch.from_numpy(constant))

    def _product(self, basis: Tensor) -> Tensor:
        """(..., B, K * inputs) times the weight; everything between networks and features is one long batch."""
        if self.weight.ndim == 2:
            return basis @ self.weight
        flat = basis.reshape(basis.shape[0], -1, basis.shape[-1])
        out = torch.matmul(flat, self.weight)
        return out.reshape(out.shape[0], *basis.shape[1:-1], self.outputs)
