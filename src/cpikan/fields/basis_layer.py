"""BasisLayer: y = b + basis(x) W on a value and its derivatives at once; a kind of layer only says what its basis is."""

from __future__ import annotations

import abc
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.duals import cut
from cpikan.fields.layer import Layer, Tape, leaf
from cpikan.fields.start import Inputs, Start
from cpikan.fields.streams import Streams


class BasisLayer(Layer):
    """A layer that is linear in ``weight`` (features, outputs) and ``bias`` (outputs,), behind a basis of its inputs.

    With ``networks`` = N both have a leading N and the product is one batched product for all. Coefficients are zero
    at first. Raises InputError for a layer without inputs or outputs.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: int, outputs: int, features: int, networks: int | None = None) -> None:
        super().__init__()
        if inputs < 1 or outputs < 1:
            raise InputError(f"layer from {inputs} to {outputs} nodes: give at least one of each")
        self.inputs, self.outputs = inputs, outputs
        lead = () if networks is None else (networks,)
        self.hold(
            torch.zeros(*lead, features, outputs, dtype=torch.float64),
            torch.zeros(*lead, outputs, dtype=torch.float64),
        )

    def hold(self, weight: Tensor, bias: Tensor) -> None:
        """Keep the coefficients, here as parameters."""
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    @abc.abstractmethod
    def basis(self, x: Tensor) -> Tensor:
        """Evaluate the features (..., B, features) of inputs (..., B, inputs)."""

    @abc.abstractmethod
    def basis_streams(self, x: Streams) -> Streams:
        """Evaluate the features with their derivatives."""

    @abc.abstractmethod
    def start(self, generator: np.random.Generator, inputs: Inputs, start: Start) -> None:
        """Draw coefficients for such inputs, by the rule of ``start``; the seed is the generator's."""

    def forward(self, x: Tensor) -> Tensor:
        """Map values (..., B, inputs) to (..., B, outputs); with N networks (N, B, inputs), or (1, B, inputs) for all."""
        return self.product(self.basis(x)) + self.bias.unsqueeze(-2)

    def streams(self, x: Streams) -> Streams:
        """Pass a value with its derivatives through the layer, all streams in one product."""
        z = x.split(self.product(self.basis_streams(x).join()))
        return z._replace(value=z.value + self.bias.unsqueeze(-2).unsqueeze(-2))

    def taped(self, x: Streams) -> tuple[Streams, Tape]:
        """Pass ``streams`` of a single network through, at points of their own, and keep how its coefficients take part."""
        z, sums = self._taped_product(self.basis_streams(x))
        return z, Tape((sums[0],), lambda pushes: sums[1](pushes[0]))

    def _taped_product(self, basis: Streams) -> tuple[Streams, tuple[Tensor, Callable[[Tensor], Tensor]]]:
        """Compute z = basis W + b, the tensor to differentiate by, and columns (B, P) = basis' dr/dz summed over streams."""
        joined = basis.join()
        z = joined @ self.weight.detach().clone()  # that may be written to before the pass back
        z = leaf(torch.cat([z[:1] + self.bias.detach(), z[1:]]))
        kept = cut(joined)

        def columns(push: Tensor) -> Tensor:
            return torch.cat([torch.einsum("sbk,sbo->bko", kept, push).flatten(1), push[0]], dim=-1)

        return basis.split(z), (z, columns)

    def product(self, basis: Tensor) -> Tensor:
        """Multiply (..., B, features) by the weight; everything between networks and features is one long batch."""
        if self.weight.ndim == 2:
            return basis @ self.weight
        flat = basis.reshape(basis.shape[0], -1, basis.shape[-1])
        out = torch.matmul(flat, self.weight)
        return out.reshape(out.shape[0], *basis.shape[1:-1], self.outputs)

    @torch.no_grad()
    def draw(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Put drawn coefficients in place."""
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.copy_(torch.from_numpy(bias))
