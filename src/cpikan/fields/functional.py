"""A field's methods as functions of its parameters, as torch.func wants them, and as one vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


class _Method(nn.Module):
    """A module whose forward is one method of another module."""

    def __init__(self, field: nn.Module, method: str) -> None:
        super().__init__()
        self.field = field
        self._method = method

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return getattr(self.field, self._method)(*arguments, **named)


def functional(field: nn.Module, method: str = "forward") -> Callable[..., Any]:
    """Make ``method`` of a field a function of (tensors, *arguments): parameters, and buffers where given, by name.

    ``functional(field, "jet")(dict(field.named_parameters()), x)`` is ``field.jet(x)``; the function can be batched over
    the tensors by ``torch.func.vmap`` and differentiated by them with ``jacrev`` and ``jacfwd``.
    """
    wrapped = _Method(field, method)

    def call(tensors: Mapping[str, Tensor], *arguments: Any, **named: Any) -> Any:
        return functional_call(wrapped, {f"field.{name}": t for name, t in tensors.items()}, arguments, named)

    return call


def parameter_vector(field: nn.Module) -> Tensor:
    """Copy all parameters as (P,), or (N, P) for N networks, in the order of ``named_parameters``."""
    start = 0 if field.networks is None else 1
    return torch.cat([p.detach().flatten(start) for p in field.parameters()], dim=-1)


def named_parameters(field: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Split a vector (..., P) into parameters by name; its leading axes replace those of the networks, if any."""
    tensors, first = {}, 0
    start = 0 if field.networks is None else 1
    for name, parameter in field.named_parameters():
        shape = parameter.shape[start:]
        tensors[name] = vector[..., first : first + shape.numel()].reshape(*vector.shape[:-1], *shape)
        first += shape.numel()
    return tensors


@torch.no_grad()
def set_parameters(field: nn.Module, vector: Tensor) -> None:
    """Copy a vector laid out as ``parameter_vector`` into the field."""
    tensors = named_parameters(field, vector)
    for name, parameter in field.named_parameters():
        parameter.copy_(tensors[name])
