"""Activations between layers: a function of a node with its first and second derivatives in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cpikan.errors import unknown_name


@dataclass(frozen=True)
class Activation:
    """``value(z)`` and ``derivatives(z)`` = (f, f', f''), all elementwise and of the shape of z."""

    name: str
    value: Callable[[Tensor], Tensor]
    derivatives: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def _tanh(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    t = torch.tanh(z)
    t1 = 1 - t * t
    return t, t1, -2 * t * t1


def _silu(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute z s(z) with s' = s (1 - s) and s'' = s' (1 - 2 s)."""
    s = torch.sigmoid(z)
    s1 = s * (1 - s)
    return z * s, s + z * s1, 2 * s1 + z * s1 * (1 - 2 * s)


def _gelu(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute z P(z) with P the normal distribution, P' its density p and p' = -z p; no approximation by tanh."""
    below = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return z * below, below + z * density, (2 - z * z) * density


def _softplus(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = torch.sigmoid(z)
    return torch.logaddexp(z, torch.zeros_like(z)), s, s * (1 - s)


def sine(frequency: float) -> Activation:
    """Compute sin(w z), as SIREN has it between layers."""

    def derivatives(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f, f1 = torch.sin(frequency * z), torch.cos(frequency * z)
        return f, frequency * f1, -(frequency**2) * f

    return Activation(f"sine {frequency:g}", lambda z: torch.sin(frequency * z), derivatives)


TANH = Activation("tanh", torch.tanh, _tanh)
ACTIVATIONS = {
    one.name: one
    for one in (
        TANH,
        Activation("silu", lambda z: _silu(z)[0], _silu),
        Activation("gelu", lambda z: _gelu(z)[0], _gelu),
        Activation("softplus", lambda z: _softplus(z)[0], _softplus),
    )
}


def activation_named(name: str) -> Activation:
    """Look up an activation; raises InputError for an unknown name. All are smooth: relu has no second derivative."""
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]
