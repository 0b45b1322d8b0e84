"""PlacedLayers: the layers of one field on several devices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.layer import Layer
from cpikan.fields.layered import ChainField
from cpikan.fields.protocol import Jet, Second
from cpikan.fields.streams import Streams


class PlacedLayers(nn.Module):
    """The field of a chain of layers, each of which works on the device that it lies on.

    Layers are moved to ``devices``, one each, the scaling to the first; what goes from one layer to the next is moved, and
    gradients go back the same way. Answers are on the last device. Numbers are those of one device, as far as devices compute
    alike. For a network that does not fit on one: those of equations have some thousand parameters and are faster there.
    Raises InputError for another number of devices than layers.
    """

    networks = None

    def __init__(self, field: ChainField, devices: Sequence[torch.device | str]) -> None:
        super().__init__()
        layers = field.chain()
        if len(devices) != len(layers):
            raise InputError(f"{len(devices)} devices for {len(layers)} layers: give one each")
        for layer, device in zip(layers, devices, strict=True):
            layer.to(device)
        field.scaling.to(devices[0])
        self.field = field

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return self.field.dimension

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return self.field.outputs

    def forward(self, x: Float[Tensor, "*points d"]) -> Float[Tensor, "*points outputs"]:
        """Evaluate values (..., outputs) at physical points (..., d)."""
        return self.jet(x, "none").value

    def jet(self, x: Float[Tensor, "*points d"], second: Second = "axes") -> Jet:
        """Evaluate value and exact derivatives, layer after layer; see ``Jet`` for ``second``."""
        here = self.field.scaling.lower.device
        streams, batch = self.field.start_streams(x.to(here), second)
        return self.field.through(streams, _moved).jet(batch)


def _moved(layer: Layer, x: Streams) -> Streams:
    """Take streams through a layer on the device of its coefficients."""
    device = next(layer.parameters()).device
    return layer.streams(x.mapped(lambda part: part.to(device)))
