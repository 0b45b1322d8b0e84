"""RandomFeatureCKAN: hidden Chebyshev layers as they were drawn, and a last layer that least squares finds in one step."""

from __future__ import annotations

import itertools
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import ChainField, Degrees, Held, Widths, checked_degrees
from cpikan.fields.scaling import Domain
from cpikan.fields.start import Inputs, Start


class FrozenChebyshevLayer(ChebyshevLayer):
    """A Chebyshev layer whose coefficients are a buffer, ``frozen``, weights first, drawn ``spread`` times as large: no
    optimizer sees them."""

    frozen: Tensor

    def __init__(self, inputs: int, outputs: int, degree: int, spread: float) -> None:
        super().__init__(inputs, outputs, degree)
        self.spread = spread

    def start(self, generator: np.random.Generator, inputs: Inputs, start: Start) -> None:
        """Draw coefficients as every Chebyshev layer, then spread them."""
        super().start(generator, inputs, start)
        self.frozen.mul_(self.spread)

    def hold(self, weight: Tensor, bias: Tensor) -> None:
        """Keep the coefficients as one row of numbers."""
        self.register_buffer("frozen", torch.cat([weight.flatten(), bias]))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Return the coefficients of T_1 ... T_K, (degree * inputs, outputs)."""
        return self.frozen[: -self.outputs].reshape(-1, self.outputs)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """Return the constants (outputs,)."""
        return self.frozen[-self.outputs :]


class RandomFeatureCKAN(ChainField):
    """A Scaled-cPIKAN whose only parameters are those of its last layer: u(x) is linear in all of them.

    Shapes as in ``ScaledCPIKAN``. The hidden layers come from the start's seed and are common to all ``networks``. A linear
    equation is then one least-squares problem; how far it comes depends on how many nodes are drawn. ``spread`` multiplies
    the hidden sums before tanh: small keeps features close to polynomials, large makes them steps. Raises InputError for
    widths or a degree below 1 and for an empty box. Dong and Li (2021), with Chebyshev edges.
    """

    settings = ("degree", "spread")

    def __init__(
        self, widths: Widths, degree: Degrees = 5, domain: Domain = None, *, spread: float = 1.0, **held: Unpack[Held]
    ) -> None:
        self.degree, self.spread = checked_degrees(degree, len(widths) - 1), float(spread)
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the frozen layers, and the last one."""
        *hidden, ((a, b), k) = zip(itertools.pairwise(self.widths), self.degree, strict=True)
        layers: list[nn.Module] = [FrozenChebyshevLayer(*sides, degree, self.spread) for sides, degree in hidden]
        self.layers = nn.ModuleList([*layers, ChebyshevLayer(a, b, k, networks)])
