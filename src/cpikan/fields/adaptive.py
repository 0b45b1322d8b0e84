"""AdaptiveCKAN and AdaptiveMLP: activations f(s z) whose slopes s are learned with the coefficients."""

from __future__ import annotations

import itertools
from typing import Literal, Unpack, get_args

from torch import Tensor, nn

from cpikan.errors import unknown_name
from cpikan.fields.activations import activation_named
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import ChainField, Degrees, Held, Through, Widths, checked_degrees
from cpikan.fields.linear_layer import LinearLayer
from cpikan.fields.scale_layer import ScaleLayer
from cpikan.fields.scaling import Domain
from cpikan.fields.start import Start
from cpikan.fields.streams import Streams

Slopes = Literal["layer", "node"]


class AdaptiveField(ChainField):
    """A chain of layers with f(s z) between them: ``slopes`` says whether there is an s for each layer or each node.

    All begin at 1, where the field is the same as without. Jagtap, Kawaguchi and Karniadakis, J. Comput. Phys. 404, 109136
    (2020), and their locally adaptive ones (2020).
    """

    slopes: Slopes

    def check(self, slopes: Slopes) -> None:
        """Keep the setting; raises InputError for another one."""
        if slopes not in get_args(Slopes):
            raise unknown_name("kind of slopes", str(slopes), get_args(Slopes))
        self.slopes = slopes

    def make_slopes(self, networks: int | None) -> None:
        """Make the slopes behind all layers but the last."""
        hidden = self.widths[1:-1]
        self.steepness = nn.ModuleList(ScaleLayer(n if self.slopes == "node" else 1, networks) for n in hidden)

    def restart(self, start: Start) -> None:
        """Draw all coefficients anew; slopes are 1."""
        super().restart(start)
        for _, slope in self._pairs():
            slope.fill(1.0)

    def _pairs(self) -> list[tuple[BasisLayer, ScaleLayer]]:
        pairs = zip(self.chain()[:-1], self.steepness, strict=True)
        return [(layer, slope) for layer, slope in pairs if isinstance(slope, ScaleLayer)]

    def _body(self, scaled: Tensor) -> Tensor:
        x = scaled
        for layer, slope in self._pairs():
            x = self.between.value(slope(layer(x)))
        return x

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        x = scaled
        for layer, slope in self._pairs():
            z = through(slope, through(layer, x))
            x = z.through(*self.between.derivatives(z.value))
        return x


class AdaptiveCKAN(AdaptiveField):
    """A `ScaledCPIKAN` with tanh(s z) between its layers.

    Raises InputError as it, and for slopes that are neither of the layer nor of the node.
    """

    settings = ("degree", "slopes")

    def __init__(
        self,
        widths: Widths,
        degree: Degrees = 5,
        domain: Domain = None,
        *,
        slopes: Slopes = "node",
        **held: Unpack[Held],
    ) -> None:
        self.check(slopes)
        self.degree = checked_degrees(degree, len(widths) - 1)
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the Chebyshev layers and their slopes."""
        pairs = zip(itertools.pairwise(self.widths), self.degree, strict=True)
        self.layers = nn.ModuleList(ChebyshevLayer(a, b, k, networks) for (a, b), k in pairs)
        self.make_slopes(networks)


class AdaptiveMLP(AdaptiveField):
    """An `MLP` with f(s z) between its layers.

    Raises InputError as it, and for slopes that are neither of the layer nor of the node.
    """

    settings = ("activation", "slopes")

    def __init__(
        self,
        widths: Widths,
        activation: str = "tanh",
        domain: Domain = None,
        *,
        slopes: Slopes = "node",
        **held: Unpack[Held],
    ) -> None:
        self.check(slopes)
        self.activation, self.between = activation, activation_named(activation)
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the dense layers and their slopes."""
        self.layers = nn.ModuleList(LinearLayer(a, b, networks) for a, b in itertools.pairwise(self.widths))
        self.make_slopes(networks)
