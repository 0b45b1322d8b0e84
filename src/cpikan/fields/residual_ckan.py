"""ResidualCKAN: Chebyshev layers behind gates that begin closed, so that a deep network begins as a shallow one."""

from __future__ import annotations

from abc import abstractmethod
from typing import Unpack

import numpy as np
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.activations import TANH
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layer import Layer
from cpikan.fields.layered import Degrees, Held, LayeredField, Through, Widths, checked_degrees, checked_widths
from cpikan.fields.scale_layer import ScaleLayer
from cpikan.fields.scaling import Domain
from cpikan.fields.start import AFTER_TANH, UNIFORM, Start
from cpikan.fields.streams import Streams


class SkippingField(LayeredField):
    """A Chebyshev network whose inner layers can be skipped: ``first`` and ``output`` are its shallow part.

    ``degree`` is one or one per layer, ``gate`` what the skips begin at. Raises InputError for hidden widths that differ.
    """

    settings = ("degree", "gate")

    def __init__(
        self, widths: Widths, degree: Degrees = 5, domain: Domain = None, *, gate: float = 0.0, **held: Unpack[Held]
    ) -> None:
        check_one_width(widths)
        self.degree, self.gate = checked_degrees(degree, len(widths) - 1), float(gate)
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the first and the last layer."""
        width = self.widths[-2]
        self.first = ChebyshevLayer(self.dimension, width, self.degree[0], networks)
        self.output = ChebyshevLayer(width, self.outputs, self.degree[-1], networks)

    @property
    def output_layer(self) -> BasisLayer:
        """Return the last layer."""
        return self.output

    def restart(self, start: Start) -> None:
        """Draw the shallow part, then what can be skipped, so that depth does not change what a seed begins with."""
        generator = np.random.default_rng(start.seed)
        self.first.start(generator, UNIFORM, start)
        self.output.start(generator, AFTER_TANH, start)
        self.restart_skipped(generator, start)

    @abstractmethod
    def restart_skipped(self, generator: np.random.Generator, start: Start) -> None:
        """Draw the layers that can be skipped, and set their gates."""


class ResidualCKAN(SkippingField):
    """u(x) = layer(tanh z_L) with z_1 = layer(scaled x) and z_(l+1) = z_l + g_l (layer_l(tanh z_l) - z_l).

    The gates g are parameters, one a layer, and begin at ``gate`` = 0: the network then equals its shallow part, the first
    layer and the last one, to the bit, and slopes pass all layers unchanged. tanh stands in front of every layer, so nodes
    stay in [-1, 1] wherever gates go. All hidden ``widths`` are equal; ``degree``, ``domain`` and ``networks`` as in
    ``ScaledCPIKAN``. Raises InputError for hidden widths that differ, widths or a degree below 1 and an empty box. The skip
    is that of Wang, Li, Chen and Perdikaris, PirateNets (2024).
    """

    def build(self, networks: int | None) -> None:
        """Make the layers, the first one and the last one apart, and the gates."""
        super().build(networks)
        width, inner = self.widths[-2], self.degree[1:-1]
        self.layers = nn.ModuleList(ChebyshevLayer(width, width, k, networks) for k in inner)
        self.gates = nn.ModuleList(ScaleLayer(1, networks) for _ in inner)

    def restart_skipped(self, generator: np.random.Generator, start: Start) -> None:
        """Draw the inner layers."""
        for layer, gate in self._pairs():
            layer.start(generator, AFTER_TANH, start)
            gate.fill(self.gate)

    def _pairs(self) -> list[tuple[ChebyshevLayer, ScaleLayer]]:
        """List the inner layers with their gates."""
        pairs = zip(self.layers, self.gates, strict=True)
        return [(a, b) for a, b in pairs if isinstance(a, ChebyshevLayer) and isinstance(b, ScaleLayer)]

    def _body(self, scaled: Tensor) -> Tensor:
        z = self.first(scaled)
        for layer, gate in self._pairs():
            z = z + gate(layer(TANH.value(z)) - z)
        return TANH.value(z)

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        z = through(self.first, scaled)
        for layer, gate in self._pairs():
            z = mixed(gate, through(layer, after_tanh(z)), z, through)
        return after_tanh(z)


def after_tanh(z: Streams) -> Streams:
    """Apply tanh."""
    return z.through(*TANH.derivatives(z.value))


def mixed(gate: Layer, new: Streams, old: Streams, through: Through) -> Streams:
    """Go from old to new nodes as far as a gate is open: old + gate (new - old)."""
    return old.plus(through(gate, new.plus(old, -1.0)))


def check_one_width(widths: Widths) -> None:
    """Raise InputError for a network without hidden layers, and for hidden layers that a skip cannot join."""
    hidden = checked_widths(widths)[1:-1]
    if not hidden or len(set(hidden)) > 1:
        raise InputError(
            f"widths {list(widths)}: skips need hidden layers, all of one width; give such as [2, 12, 12, 12, 1]"
        )
