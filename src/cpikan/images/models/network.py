"""ImageNetwork: what every network of images says of itself, and how it is written down and built again."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ImageNetwork(nn.Module, abc.ABC):
    """A network from (N, channels_in, h, w) to (N, channels_out, h, w); h and w are multiples of ``multiple_px``.

    The settings of a kind are the parameters of its constructor, each kept as an attribute of that name; ``ranges`` says what
    whole numbers may be asked for in a file: nobody has the patience to build more. ``receptive_field_px`` bounds the side of
    the square of input pixels that an output pixel sees. With ``checkpointing`` activations are computed again in the backward
    pass instead of kept.
    """

    kind: ClassVar[str]
    ranges: ClassVar[Mapping[str, tuple[int, int]]] = {
        "channels_in": (1, 1024),
        "channels_out": (1, 1024),
        "depth": (1, 64),
        "widths": (1, 4096),
        "width": (1, 4096),
    }
    checkpointing = False

    @property
    @abc.abstractmethod
    def multiple_px(self) -> int:
        """Return the number of pixels that tiles start and end at multiples of."""

    @property
    @abc.abstractmethod
    def receptive_field_px(self) -> int | Literal["global"]:
        """Return the side of the square of input pixels that one output pixel sees, at most."""

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """List the settings and their defaults, None for those that must be given."""
        parameters = inspect.signature(cls).parameters.values()
        return {each.name: None if each.default is each.empty else each.default for each in parameters}

    def config(self) -> dict[str, Any]:
        """Write the settings down, JSON-able; `from_config` builds the network of them, weights apart."""
        values = {name: getattr(self, name) for name in self.settings()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageNetwork:
        """Build a network of what `config` gave."""
        return cls(**config)

    def run(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Pass ``x`` through a layer, keeping its activations or not."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, x, use_reentrant=False)
        return layer(x)
