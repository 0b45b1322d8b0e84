"""Duals: tensors with tangents of forward mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import jvp


def cut(tensor: Tensor) -> Tensor:
    """Cut a tensor off what it was computed from; its tangent, which ``detach`` would drop, stays."""
    primal, tangent = forward_ad.unpack_dual(tensor)
    if tangent is None:
        return tensor.detach()
    return forward_ad.make_dual(primal.detach(), tangent.detach())


def steps(x: Tensor, axis: int) -> Tensor:
    """Make unit steps along an axis at all points (n, d)."""
    step = torch.zeros_like(x)
    step[:, axis] = 1.0
    return step


def along_axis(function: Callable[[Tensor], list[Tensor]], x: Tensor, axis: int) -> list[Tensor]:
    """Differentiate values of points (n, d) along an axis, in forward mode; inside transforms of torch.func by its own."""
    if torch._C._are_functorch_transforms_active():
        found: list[Tensor] = jvp(function, (x,), (steps(x, axis),))[1]
        return found
    with forward_ad.dual_level():
        pairs = [forward_ad.unpack_dual(value) for value in function(forward_ad.make_dual(x, steps(x, axis)))]
        return [torch.zeros_like(value) if slope is None else slope for value, slope in pairs]
