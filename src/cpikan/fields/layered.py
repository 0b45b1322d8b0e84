"""LayeredField: scaling, a body of layers and an output layer; values, jets and features of every such field."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpikan.errors import WHOLE, InputError, check_type
from cpikan.fields.activations import TANH, Activation
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.layer import Layer
from cpikan.fields.protocol import Jet, Second, check_second, flat_points
from cpikan.fields.scaling import AffineScaling, Domain
from cpikan.fields.start import AFTER_TANH, START, UNIFORM, Inputs
from cpikan.fields.start import Start as Start
from cpikan.fields.streams import Streams, side_by_side, start

Widths = Sequence[int]
Degrees = int | Sequence[int]  # one, or one per layer


class Held(TypedDict, total=False):
    """How many fields are held as one (``networks``, None for one), and how they are drawn (``start``, None for all zero)."""

    networks: int | None
    start: Start | None


Through = Callable[[Layer, Streams], Streams]


def plainly(layer: Layer, x: Streams) -> Streams:
    """Take streams through a layer, and keep nothing."""
    return layer.streams(x)


class LayeredField(nn.Module, abc.ABC):
    """A field on a box that ends in a layer with linear coefficients: u(x) = output(body(scaled x)).

    A kind of field keeps its ``settings`` as attributes of these names, then calls ``__init__`` here, which has its layers made
    (``build``) and drawn (``restart``). It says what its body is, for values and for streams of derivatives, and which layer
    is its ``output_layer``. Parameters are float64 until ``.to(dtype)``. A field is a
    function of its parameters without state, so ``torch.func`` and ``torch.compile`` take it as it is. Raises InputError
    for widths below 1, a box that is empty or of other axes, and boxes for another number of networks.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    takes_nodes: ClassVar[bool] = True  # whether other functions of the point may stand in place of its coordinates

    def __init__(
        self, widths: Widths, domain: Domain, networks: int | None = None, start: Start | None = START
    ) -> None:
        super().__init__()
        sizes = checked_widths(widths)
        self.scaling = AffineScaling.of(domain, sizes[0], networks)
        self.widths = sizes
        self.build(networks)
        if start is not None:
            self.restart(start)

    @abc.abstractmethod
    def build(self, networks: int | None) -> None:
        """Make the layers of ``widths`` and the settings, coefficients zero."""

    @abc.abstractmethod
    def restart(self, start: Start) -> None:
        """Draw all coefficients anew: equal draws for equal seeds, whatever the precision."""

    @property
    @abc.abstractmethod
    def output_layer(self) -> BasisLayer:
        """Return the last layer: its coefficients are what the field is linear in."""

    @abc.abstractmethod
    def _body(self, scaled: Float[Tensor, "*#points d"]) -> Float[Tensor, "*#points n"]:
        """Compute the input (..., B, n) of the output layer at scaled points (..., B, d)."""

    @abc.abstractmethod
    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        """Compute the input of the output layer with its derivatives; ``through(layer, streams)`` takes streams through a
        layer."""

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return self.widths[0]

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return self.widths[-1]

    @property
    def networks(self) -> int | None:
        """Count the independent fields held, None for one; read off the coefficients, which may be swapped."""
        bias = self.output_layer.bias
        return None if bias.ndim == 1 else int(bias.shape[0])

    def forward(self, x: Float[Tensor, "*#points d"]) -> Float[Tensor, "*#points outputs"]:
        """Evaluate values (..., outputs) at physical points (..., d)."""
        scaled, batch = self._enter(x)
        value = self.output_layer(self._body(scaled))
        return value.reshape(*value.shape[:-2], *batch, self.outputs)

    def jet(self, x: Float[Tensor, "*#points d"], second: Second = "axes") -> Jet:
        """Evaluate value and exact derivatives by the physical coordinates, one forward pass; see ``Jet`` for ``second``."""
        streams, batch = self.start_streams(x, second)
        return self._jet_streams(streams).jet(batch)

    def features(self, x: Float[Tensor, "*#points d"]) -> Float[Tensor, "*#points features"]:
        """Compute what the output is linear in, (..., F): a constant, then the basis of the output layer."""
        scaled, batch = self._enter(x)
        basis = self.output_layer.basis(self._body(scaled))
        basis = torch.cat([torch.ones_like(basis[..., :1]), basis], dim=-1)
        return basis.reshape(*basis.shape[:-2], *batch, basis.shape[-1])

    def features_jet(self, x: Float[Tensor, "*#points d"], second: Second = "axes") -> Jet:
        """Evaluate ``features`` with their derivatives, (..., F), (..., F, d) and second derivatives as in ``jet``."""
        streams, batch = self.start_streams(x, second)
        basis = self.output_layer.basis_streams(self._body_streams(streams, plainly))
        one = basis.constant(torch.ones_like(basis.value[..., 0, :, :1]))
        return side_by_side([one, basis]).jet(batch)

    def output_coefficients(self) -> Float[Tensor, "*networks features outputs"]:
        """Return the coefficients of the features, (F, outputs) or (N, F, outputs)."""
        last = self.output_layer
        return torch.cat([last.bias.unsqueeze(-2), last.weight], dim=-2)

    @torch.no_grad()
    def set_output_coefficients(self, coefficients: Tensor) -> None:
        """Put the coefficients of the features in place, as a least-squares step found them."""
        last = self.output_layer
        shape = (*last.weight.shape[:-2], last.weight.shape[-2] + 1, last.outputs)
        if tuple(coefficients.shape) != shape:
            raise InputError(f"output coefficients of shape {tuple(coefficients.shape)}: give {shape}")
        last.bias.copy_(coefficients[..., 0, :])
        last.weight.copy_(coefficients[..., 1:, :])

    def config(self) -> dict[str, Any]:
        """Write down what is needed to build the field again, without its parameters."""
        values = {name: getattr(self, name) for name in self.settings}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"widths": list(self.widths), "domain": self.scaling.config(), "networks": self.networks, **plain}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LayeredField:
        """Build a field of this shape with parameters that are all zero."""
        box = config["domain"]
        shape = {name: value for name, value in config.items() if name != "domain"}
        return cls(**shape, domain=(box["lower"], box["upper"]), start=None)

    def through(self, scaled: Streams, through: Through) -> Streams:
        """Compute the output with its derivatives; ``through(layer, streams)`` takes streams through every layer."""
        return through(self.output_layer, self._body_streams(scaled, through))

    def _jet_streams(self, streams: Streams) -> Streams:
        """Compute the output with its derivatives, from the streams of the scaled coordinates."""
        return self.through(streams, plainly)

    def _enter(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Scale points to (..., B, d), and return them with the shape B came from."""
        flat, batch = flat_points(x, self.networks, self.scaling.lower.dtype)
        return self.scaling(flat), batch

    def start_streams(self, x: Tensor, second: Second) -> tuple[Streams, tuple[int, ...]]:
        """Start streams: the scaled coordinates with their derivatives by the physical ones."""
        check_second(second)
        scaled, batch = self._enter(x)
        return start(scaled, self.scaling.slopes(), second), batch


class ChainField(LayeredField):
    """A layered field whose body is one layer after the other with the same activation ``between`` them; ``layers`` are
    all of them, the output layer last, and ``entry`` is what the first one is drawn for."""

    layers: nn.ModuleList
    between: Activation = TANH
    entry: Inputs = UNIFORM

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew, variance-preserving: equal draws for equal seeds, whatever the precision."""
        start_layers(self.chain(), start, np.random.default_rng(start.seed), self.entry)

    def chain(self) -> list[BasisLayer]:
        """List the layers, the last one included."""
        return [layer for layer in self.layers if isinstance(layer, BasisLayer)]

    @property
    def output_layer(self) -> BasisLayer:
        """Return the last layer."""
        return self.chain()[-1]

    def _body(self, scaled: Float[Tensor, "*#points d"]) -> Float[Tensor, "*#points n"]:
        return chain(self.chain()[:-1], self.between, scaled)

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        return chain_streams(self.chain()[:-1], self.between, scaled, through)


def chain(layers: Sequence[BasisLayer], between: Activation, x: Tensor) -> Tensor:
    """Pass values through hidden layers one after the other, the activation behind each."""
    for layer in layers:
        x = between.value(layer(x))
    return x


def chain_streams(layers: Sequence[BasisLayer], between: Activation, x: Streams, through: Through = plainly) -> Streams:
    """Pass streams through hidden layers one after the other, as ``chain`` does values."""
    for layer in layers:
        z = through(layer, x)
        x = z.through(*between.derivatives(z.value))
    return x


def start_layers(
    layers: Sequence[BasisLayer], start: Start, generator: np.random.Generator, entry: Inputs = UNIFORM
) -> None:
    """Draw the coefficients of layers in a chain, the first for inputs of ``entry``, the others for what tanh leaves."""
    for number, layer in enumerate(layers):
        layer.start(generator, AFTER_TANH if number else entry, start)


def checked_widths(widths: Widths) -> tuple[int, ...]:
    """Check widths, as whole numbers; raises InputError for fewer than two and for one below 1."""
    check_type("widths", widths, (Sequence, np.ndarray), "whole numbers, as [2, 8, 8, 1]")
    for width in widths:
        check_type(f"one of widths {list(widths)}", width, WHOLE, "whole numbers, as [2, 8, 8, 1]")
    sizes = tuple(int(width) for width in widths)
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(
            f"widths {list(widths)} make no network: give at least two whole numbers from 1, as [2, 8, 8, 1]"
        )
    return sizes


def checked_degrees(degree: Degrees, layers: int) -> tuple[int, ...]:
    """Spread a degree over the layers; raises InputError for another number of degrees than layers."""
    for one in degree if isinstance(degree, Sequence) else [degree]:
        check_type("degree", one, WHOLE, "a whole number, or one per layer")
    degrees = tuple(int(k) for k in degree) if isinstance(degree, Sequence) else (int(degree),) * layers
    if len(degrees) != layers:
        raise InputError(
            f"degree {list(degrees)} has {len(degrees)} numbers for {layers} layers: give one, or one each"
        )
    return degrees
