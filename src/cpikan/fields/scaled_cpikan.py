"""ScaledCPIKAN: affine scaling, then Chebyshev layers with tanh between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields import chebyshev
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.protocol import Jet, Second, check_second, flat_points
from cpikan.fields.scaling import AffineScaling, Bounds
from cpikan.fields.streams import Streams, start


@dataclass(frozen=True)
class Start:
    """How coefficients are drawn: the seed, and the power with which a degree's share of the variance falls."""

    seed: int = 0
    decay: float = 2.0


class ScaledCPIKAN(nn.Module):
    """A Chebyshev physics-informed KAN on a physical box: u(x) = layer(tanh(layer(... scaled x))).

    ``widths`` are the nodes from the coordinates to the outputs, such as [2, 8, 8, 1]; ``degree`` is one number or one
    per layer; ``domain`` is the box (lower, upper) in physical units, by default [-1, 1] per axis. With ``networks`` = N
    the module holds N independent fields, one product per layer for all; the box may then have one row per field, and
    points are (N, ..., d), or (1, ..., d) for the same points in all. Parameters are float64 until ``.to(dtype)``.

    The start gives every layer's output variance 1 over points uniform in the box. A field is a function of the
    parameters without state, so ``torch.func`` and ``torch.compile`` take it as it is. Raises InputError for widths or a
    degree below 1 and for an empty box. Mostajeran and Faroughi, arXiv 2501.02762.
    """

    def __init__(
        self,
        widths: Sequence[int],
        degree: int | Sequence[int] = 5,
        domain: tuple[Bounds, Bounds] | None = None,
        *,
        networks: int | None = None,
        start: Start | None = Start(),
    ) -> None:
        super().__init__()
        sizes, degrees = _sizes(widths), _degrees(degree, len(widths) - 1)
        lower, upper = domain if domain is not None else ([-1.0] * sizes[0], [1.0] * sizes[0])
        self.scaling = AffineScaling(lower, upper)
        if self.scaling.dimension != sizes[0]:
            raise InputError(
                f"domain has {self.scaling.dimension} axes and widths begin with {sizes[0]}: make them equal"
            )
        if networks is not None and networks < 1:
            raise InputError(f"networks {networks}: give at least 1, or None for a single field")
        if self.scaling.networks not in (None, networks):
            raise InputError(
                f"domain holds {self.scaling.networks} boxes for networks={networks}: give one box, or one each"
            )
        self._widths, self._degrees = sizes, degrees
        self.layers = nn.ModuleList(
            ChebyshevLayer(a, b, k, networks) for (a, b), k in zip(itertools.pairwise(sizes), degrees, strict=True)
        )
        if start is not None:
            self.restart(start)

    @property
    def dimension(self) -> int:
        """Coordinates of a point."""
        return self._widths[0]

    @property
    def outputs(self) -> int:
        """Components of the value."""
        return self._widths[-1]

    @property
    def networks(self) -> int | None:
        """How many independent fields are held, None for one; read off the coefficients, which may be swapped."""
        bias = self.chebyshev_layers()[-1].bias
        return None if bias.ndim == 1 else int(bias.shape[0])

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew, variance-preserving: equal draws for equal seeds, whatever the precision."""
        generator = np.random.default_rng(start.seed)
        for number, layer in enumerate(self.chebyshev_layers()):
            moments = chebyshev.mean_squares_after_tanh if number else chebyshev.mean_squares_uniform
            layer.start(moments(layer.degree), start.decay, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Values (..., outputs) at physical points (..., d)."""
        hidden, batch = self._enter(x)
        value = self.chebyshev_layers()[-1](self._hidden(hidden))
        return value.reshape(*value.shape[:-2], *batch, self.outputs)

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Value and exact derivatives by the physical coordinates, one forward pass; see ``Jet`` for ``second``."""
        streams, batch = self._hidden_streams(x, second)
        return self.chebyshev_layers()[-1].streams(streams).jet(batch)

    def features(self, x: Tensor) -> Tensor:
        """What the output is linear in, (..., 1 + degree * width): a constant, then the basis of the last layer."""
        hidden, batch = self._enter(x)
        basis = self.chebyshev_layers()[-1].basis(self._hidden(hidden))
        basis = torch.cat([torch.ones_like(basis[..., :1]), basis], dim=-1)
        return basis.reshape(*basis.shape[:-2], *batch, basis.shape[-1])

    def features_jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """``features`` with their derivatives, (..., F), (..., F, d) and second derivatives as in ``jet``."""
        streams, batch = self._hidden_streams(x, second)
        basis = self.chebyshev_layers()[-1].basis_streams(streams)
        value, first, curve = basis.value, basis.first, basis.second
        with_constant = Streams(
            torch.cat([torch.ones_like(value[..., :1]), value], dim=-1),
            torch.cat([torch.zeros_like(first[..., :1]), first], dim=-1),
            torch.cat([torch.zeros_like(curve[..., :1]), curve], dim=-1),
            second,
        )
        return with_constant.jet(batch)

    def output_coefficients(self) -> Tensor:
        """The coefficients of the features, (F, outputs) or (N, F, outputs)."""
        last = self.chebyshev_layers()[-1]
        return torch.cat([last.bias.unsqueeze(-2), last.weight], dim=-2)

    @torch.no_grad()
    def set_output_coefficients(self, coefficients: Tensor) -> None:
        """Put the coefficients of the features in place, as a least-squares step found them."""
        last = self.chebyshev_layers()[-1]
        shape = (*last.weight.shape[:-2], last.weight.shape[-2] + 1, last.outputs)
        if tuple(coefficients.shape) != shape:
            raise InputError(f"output coefficients of shape {tuple(coefficients.shape)}: give {shape}")
        last.bias.copy_(coefficients[..., 0, :])
        last.weight.copy_(coefficients[..., 1:, :])

    def config(self) -> dict[str, Any]:
        """What is needed to build the field again, without its parameters."""
        return {
            "widths": list(self._widths),
            "degree": list(self._degrees),
            "domain": self.scaling.config(),
            "networks": self.networks,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ScaledCPIKAN:
        """A field of this shape with parameters that are all zero."""
        box = config["domain"]
        domain = (box["lower"], box["upper"])
        return cls(config["widths"], config["degree"], domain, networks=config["networks"], start=None)

    def chebyshev_layers(self) -> list[ChebyshevLayer]:
        """The layers from the coordinates to the outputs."""
        return [layer for layer in self.layers if isinstance(layer, ChebyshevLayer)]

    def _enter(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Scaled points as (..., B, d), and the shape B came from."""
        flat, batch = flat_points(x, self.networks, self.scaling.lower.dtype)
        return self.scaling(flat), batch

    def _hidden(self, scaled: Tensor) -> Tensor:
        """The input of the last layer."""
        for layer in self.chebyshev_layers()[:-1]:
            scaled = torch.tanh(layer(scaled))
        return scaled

    def _hidden_streams(self, x: Tensor, second: Second) -> tuple[Streams, tuple[int, ...]]:
        """The input of the last layer with its derivatives by the physical coordinates."""
        check_second(second)
        scaled, batch = self._enter(x)
        streams = start(scaled, self.scaling.slopes(), second)
        for layer in self.chebyshev_layers()[:-1]:
            z = layer.streams(streams)
            t = torch.tanh(z.value)
            t1 = 1 - t * t
            streams = z.through(t, t1, -2 * t * t1)
        return streams, batch


def _sizes(widths: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(width) for width in widths)
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(
            f"widths {list(widths)} make no network: give at least two whole numbers from 1, as [2, 8, 8, 1]"
        )
    return sizes


def _degrees(degree: int | Sequence[int], layers: int) -> tuple[int, ...]:
    degrees = tuple(int(k) for k in degree) if isinstance(degree, Sequence) else (int(degree),) * layers
    if len(degrees) != layers:
        raise InputError(
            f"degree {list(degrees)} has {len(degrees)} numbers for {layers} layers: give one, or one each"
        )
    return degrees
