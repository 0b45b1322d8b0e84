"""Layer: what a field is made of, for values, for streams of derivatives, and with a tape of its parameters."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from cpikan.fields.streams import Streams


class Tape(NamedTuple):
    """Tensors to differentiate residuals (B,) by, and columns (B, P) of a layer's parameters from the answers to them."""

    by: tuple[Tensor, ...]
    columns: Callable[[Sequence[Tensor]], Tensor]


def leaf(tensor: Tensor) -> Tensor:
    """Return the tensor, made to be differentiated by where it is not yet."""
    return tensor if tensor.requires_grad else tensor.requires_grad_()


class Layer(nn.Module, abc.ABC):
    """A function of nodes with parameters of its own; its columns on the tape are in their order."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map values (..., B, inputs) to (..., B, outputs); with N networks (N, B, inputs), or (1, B, inputs) for all."""

    @abc.abstractmethod
    def streams(self, x: Streams) -> Streams:
        """Pass a value with its derivatives through the layer."""

    @abc.abstractmethod
    def taped(self, x: Streams) -> tuple[Streams, Tape]:
        """Pass ``streams`` of a single network through, at points of their own, and keep how its parameters take part."""
