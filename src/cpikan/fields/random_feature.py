"""RandomFeatureCKAN: hidden Chebyshev layers as they were drawn, and a last layer that least squares finds in one step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.fields import chebyshev
from cpikan.fields.activations import TANH
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import START, ChainField, Domain, Start, checked_degrees


class FrozenChebyshevLayer(ChebyshevLayer):
    """A Chebyshev layer whose coefficients are a buffer, ``frozen``, weights first: no optimizer sees them."""

    frozen: Tensor

    def hold(self, weight: Tensor, bias: Tensor) -> None:
        """Keep the coefficients as one row of numbers."""
        self.register_buffer("frozen", torch.cat([weight.flatten(), bias]))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The coefficients of T_1 ... T_K, (degree * inputs, outputs)."""
        return self.frozen[: -self.outputs].reshape(-1, self.outputs)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """The constants (outputs,)."""
        return self.frozen[-self.outputs :]


class RandomFeatureCKAN(ChainField):
    """A Scaled-cPIKAN whose only parameters are those of its last layer: u(x) is linear in all of them.

    Shapes as in ``ScaledCPIKAN``. The hidden layers come from the start's seed and are common to all ``networks``. A linear
    equation is then one least-squares problem; how far it comes depends on how many nodes are drawn. ``spread`` multiplies
    the hidden sums before tanh: small keeps features close to polynomials, large makes them steps. Raises InputError for
    widths or a degree below 1 and for an empty box. Dong and Li (2021), with Chebyshev edges.
    """

    between = TANH

    def __init__(
        self,
        widths: Sequence[int],
        degree: int | Sequence[int] = 5,
        domain: Domain | None = None,
        *,
        spread: float = 1.0,
        networks: int | None = None,
        start: Start | None = START,
    ) -> None:
        super().__init__(widths, domain, networks)
        self._degrees, self._spread = checked_degrees(degree, len(self.widths) - 1), float(spread)
        pairs = list(zip(itertools.pairwise(self.widths), self._degrees, strict=True))
        layers: list[nn.Module] = [FrozenChebyshevLayer(a, b, k) for (a, b), k in pairs[:-1]]
        (a, b), k = pairs[-1]
        self.layers = nn.ModuleList([*layers, ChebyshevLayer(a, b, k, networks)])
        if start is not None:
            self.restart(start)

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew, the frozen ones too."""
        generator = np.random.default_rng(start.seed)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, ChebyshevLayer)
            moments = chebyshev.mean_squares_after_tanh if number else chebyshev.mean_squares_uniform
            layer.start(moments(layer.degree), start.decay, generator)
            if isinstance(layer, FrozenChebyshevLayer):
                layer.frozen.mul_(self._spread)

    def config(self) -> dict[str, Any]:
        """What is needed to build the field again, without its coefficients."""
        return {**super().config(), "degree": list(self._degrees), "spread": self._spread}
