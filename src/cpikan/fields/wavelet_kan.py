"""WaveletKAN: edges that are sums of shifted and stretched mother wavelets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.duals import cut
from cpikan.fields.layer import Tape, leaf
from cpikan.fields.layered import ChainField, Degrees, Held, Widths, checked_degrees
from cpikan.fields.scaling import Domain
from cpikan.fields.start import Inputs, Start
from cpikan.fields.streams import Streams
from cpikan.fields.wavelets import PEAKS, wavelet_named


class WaveletLayer(BasisLayer):
    """y_o = b_o + sum over i, k of w_(i,k,o) psi((x_i - t_(i,k)) / s_(i,k)) with K wavelets per input.

    Shifts and scales belong to the input and are learned, so all edges out of a node share its K wavelets and the layer
    is one matrix product; the original has one wavelet of its own per edge. ``log_scale`` keeps scales positive.
    Bozorgasl and Chen, Wav-KAN, arXiv 2405.12832; without its batch normalisation, under which a value would depend on the
    other points and have no derivative of its own.
    """

    def __init__(self, inputs: int, outputs: int, wavelets: int, mother: str, networks: int | None = None) -> None:
        if wavelets < 1:
            raise InputError(f"{wavelets} wavelets per edge: give at least 1")
        super().__init__(inputs, outputs, wavelets * inputs, networks)
        self.wavelets, self._name, self._mother = wavelets, mother, wavelet_named(mother)
        lead = () if networks is None else (networks,)
        self.shift = nn.Parameter(torch.zeros(*lead, wavelets, inputs, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.zeros(*lead, wavelets, inputs, dtype=torch.float64))

    def basis(self, x: Tensor) -> Tensor:
        """Evaluate the wavelets of every input, (..., B, K * inputs)."""
        shift, scale = self.shift.unsqueeze(-3), torch.exp(self.log_scale).unsqueeze(-3)
        return self._mother((x.unsqueeze(-2) - shift) / scale)[0].flatten(-2)

    def basis_streams(self, x: Streams) -> Streams:
        """Evaluate the wavelets with their derivatives."""
        y = self._stretched(x, self.shift, self.log_scale)
        return y.through(*self._mother(y.value))

    def taped(self, x: Streams) -> tuple[Streams, Tape]:
        """Pass streams through as every layer; arguments y = (x - t) / s answer to t with -1 / s, to log s with -y."""
        y = self._stretched(x, self.shift.detach(), self.log_scale.detach())
        joined = leaf(y.join())
        y = y.split(joined)
        kept, inverse = cut(joined), torch.exp(-self.log_scale.detach()).flatten()
        z, (sums, columns) = self._taped_product(y.through(*self._mother(y.value)))

        def all_columns(pushes: Sequence[Tensor]) -> Tensor:
            shift = -pushes[1][0] * inverse
            return torch.cat([columns(pushes[0]), shift, -(pushes[1] * kept).sum(dim=0)], dim=-1)

        return z, Tape((sums, joined), all_columns)

    def _stretched(self, x: Streams, shift: Tensor, log_scale: Tensor) -> Streams:
        """Compute (x - t) / s with derivatives, for the K wavelets of every input side by side."""
        inverse = torch.exp(-log_scale)[..., None, None, :, :]
        y = x._replace(value=(x.value.unsqueeze(-2) - shift[..., None, None, :, :]) * inverse)
        first, second = x.first.unsqueeze(-2) * inverse, x.second.unsqueeze(-2) * inverse
        return Streams(y.value.flatten(-2), first.flatten(-2), second.flatten(-2), x.kind)

    @torch.no_grad()
    def start(self, generator: np.random.Generator, inputs: Inputs, start: Start) -> None:
        """Draw coefficients, whatever the ``inputs`` and the rule of ``start``.

        Shifts are spread evenly over [-1, 1] up to a draw, and scales at which a wave is 3 to 6 long, whatever the mother.

        Weights give every output variance 0.9 over inputs uniform in [-1, 1], as measured on an even grid; the constant
        has 0.1.
        """
        count = self.wavelets
        ticks = (2 * np.arange(count) + 1) / count - 1
        jitter = generator.uniform(-1, 1, tuple(self.shift.shape)) / count
        waves = generator.uniform(np.log(3), np.log(6), tuple(self.log_scale.shape))
        self.shift.copy_(torch.from_numpy(ticks[:, None] + jitter))
        self.log_scale.copy_(torch.from_numpy(waves + np.log(PEAKS[self._name] / (2 * np.pi))))
        grid = torch.linspace(-1, 1, 101, dtype=self.shift.dtype)[:, None].expand(-1, self.inputs)
        squares = self.basis(grid).square().mean(dim=-2).sum(dim=-1)[..., None, None].double().numpy()
        weight = generator.standard_normal(tuple(self.weight.shape)) * np.sqrt(0.9 / squares)
        self.draw(weight, np.sqrt(0.1) * generator.standard_normal(tuple(self.bias.shape)))


class WaveletKAN(ChainField):
    """A Kolmogorov-Arnold network of wavelets on a box: u(x) = layer(tanh(layer(... scaled x))).

    ``wavelets`` is how many every edge sums, one number or one per layer; ``mother`` one of mexican-hat, morlet, dog and
    shannon. tanh between layers keeps nodes where the wavelets are. Shapes and ``networks`` as in ``ScaledCPIKAN``. Raises
    InputError for widths or a number of wavelets below 1, an empty box and a mother that is not there.
    """

    settings = ("wavelets", "mother")

    def __init__(
        self,
        widths: Widths,
        wavelets: Degrees = 5,
        domain: Domain = None,
        *,
        mother: str = "mexican-hat",
        **held: Unpack[Held],
    ) -> None:
        self.wavelets, self.mother = checked_degrees(wavelets, len(widths) - 1), mother
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the layers of wavelets."""
        pairs = zip(itertools.pairwise(self.widths), self.wavelets, strict=True)
        self.layers = nn.ModuleList(WaveletLayer(a, b, k, self.mother, networks) for (a, b), k in pairs)
