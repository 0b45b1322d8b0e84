"""Derivatives of third and higher order: directional derivatives of the jet, forward all the way, for any field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from cpikan.errors import InputError, check_type

_MOST = 4


def higher_derivatives(field: Any, x: Tensor, order: int = 3) -> Tensor:
    """Compute all derivatives of one order, (..., outputs, d, ..., d) with ``order`` axes of d, at points (..., d), exact to
    rounding.

    Second derivatives come in closed form, each further order is their derivative along every axis in forward mode, so
    nothing is recorded by x; third orders cost d Hessians, fourth d^2. They can be differentiated by the parameters.
    Equations of fourth order are better posed as two of second order. Raises InputError for an order other than 3 or 4.
    """
    if not hasattr(field, "jet"):
        raise InputError(f"field {type(field).__name__} has no jet: give a field of this package, or one made like it")
    check_type("x", x, Tensor, "points (..., d) as a tensor")
    if x.shape[-1:] != (field.dimension,):
        raise InputError(f"points of shape {tuple(x.shape)} for {field.dimension} axes: give (..., {field.dimension})")
    if order not in range(3, _MOST + 1):
        raise InputError(f"derivatives of order {order}: give 3 or 4, jet(x) has the lower ones")

    def bend(points: Tensor) -> Tensor:
        found: Tensor = field.jet(points, "full").second
        return found

    function: Callable[[Tensor], Tensor] = bend
    for _ in range(order - 2):
        function = _along_axes(function)
    return function(x)


def _along_axes(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compute the derivatives along every axis, behind the others."""

    def derivatives(points: Tensor) -> Tensor:
        steps = torch.eye(points.shape[-1], dtype=points.dtype, device=points.device)
        found = [jvp(function, (points,), (step.expand_as(points).contiguous(),))[1] for step in steps]
        return torch.stack(found, dim=-1)

    return derivatives
