"""Unknown coefficients of a problem as parameters beside those of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.fields.protocol import Jet, LinearOutput, Second
from cpikan.physics.problem import Unknown


class FieldWithUnknowns(nn.Module):
    """A network with the unknowns (k,) of a problem; its jet has them as further outputs that do not vary."""

    networks = None

    def __init__(self, network: Any, unknowns: Sequence[Unknown]) -> None:
        super().__init__()
        self.network = network
        self.unknowns = nn.Parameter(torch.tensor([one.start for one in unknowns], dtype=torch.float64))

    @property
    def outputs(self) -> int:
        """Count the outputs of the network and the unknowns."""
        return int(self.network.outputs) + len(self.unknowns)

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the network alone."""
        found: Tensor = self.network(x)
        return found

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate the jet of the network with the unknowns as further outputs."""
        return append_unknowns(self.network.jet(x, second), self.unknowns.expand(len(x), -1))


def with_unknowns(network: nn.Module, unknowns: Sequence[Unknown]) -> nn.Module:
    """Put unknowns beside a network, where there are such."""
    return FieldWithUnknowns(network, unknowns) if unknowns else network


def append_unknowns(jet: Jet, unknowns: Tensor | None) -> Jet:
    """Append unknowns (B, k) to the outputs of a jet, with derivatives of zero."""
    if unknowns is None:
        return jet
    count = unknowns.shape[-1]
    flat = [part.new_zeros(part.shape[0], count, *part.shape[2:]) for part in (jet.gradient, jet.second)]
    parts = zip(jet, (unknowns, *flat), strict=True)
    return Jet(*(torch.cat([part, more], dim=1) for part, more in parts))


def network_of(field: nn.Module) -> Any:
    """Give the network of a field, without unknowns."""
    return field.network if isinstance(field, FieldWithUnknowns) else field


def unknowns_of(field: nn.Module) -> Tensor | None:
    """Give the unknowns (k,) beside a network; None where there are none."""
    return field.unknowns if isinstance(field, FieldWithUnknowns) else None


def outputs_of(field: Any) -> int:
    """Count the outputs of a field's jet."""
    return int(field.outputs)


def is_linear(field: nn.Module) -> bool:
    """Tell whether a field's network is linear in coefficients of its output."""
    return isinstance(network_of(field), LinearOutput)


def output_vector(field: nn.Module) -> Tensor:
    """Copy the output coefficients and the unknowns to a vector in the order of ``linearise(field, "output")``."""
    found, unknowns = network_of(field).output_coefficients().detach().flatten(), unknowns_of(field)
    return found.clone() if unknowns is None else torch.cat([found, unknowns.detach()])


@torch.no_grad()
def set_output_vector(field: nn.Module, vector: Tensor) -> None:
    """Put a vector laid out as ``output_vector`` into the field."""
    network, unknowns = network_of(field), unknowns_of(field)
    shape = network.output_coefficients().shape
    network.set_output_coefficients(vector[: shape.numel()].reshape(shape))
    if unknowns is not None:
        unknowns.copy_(vector[shape.numel() :])


def zero_output(field: nn.Module) -> None:
    """Make the output vanish; unknowns stay."""
    network = network_of(field)
    network.set_output_coefficients(torch.zeros_like(network.output_coefficients()))
