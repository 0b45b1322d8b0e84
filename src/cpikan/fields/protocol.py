"""Field and Jet: what every u(x) offers, and how derivatives are laid out."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from cpikan.errors import InputError, unknown_name

Second = Literal["axes", "full", "laplacian", "none"]


class Jet(NamedTuple):
    """A field with its derivatives by the physical coordinates, (..., outputs) at points (..., d).

    ``gradient`` is (..., outputs, d). ``second`` depends on what was asked for: "axes" the unmixed second derivatives
    (..., outputs, d); "full" the Hessian (..., outputs, d, d); "laplacian" the sum of the unmixed ones (..., outputs),
    which costs one stream instead of d; "none" an empty (..., outputs, 0).
    """

    value: Tensor
    gradient: Tensor
    second: Tensor


@runtime_checkable
class Field(Protocol):
    """A function of d coordinates with ``outputs`` components; a torch module whose parameters are its shape.

    ``networks`` is None for one field, or the number N of independent fields held as one: then points are (N, ..., d),
    or (1, ..., d) for the same points in all, and results are (N, ..., outputs).
    """

    @property
    def dimension(self) -> int: ...

    @property
    def outputs(self) -> int: ...

    @property
    def networks(self) -> int | None: ...

    def __call__(self, x: Tensor) -> Tensor: ...

    def jet(self, x: Tensor, second: Second = "axes") -> Jet: ...


@runtime_checkable
class LinearOutput(Protocol):
    """A field that is linear in its last coefficients: u(x) = features(x) @ coefficients.

    A least-squares step needs the features (..., F), their jet ((..., F), (..., F, d), ...) and a way to put the
    coefficients (F, outputs), with a leading N for N fields, back.
    """

    def features(self, x: Tensor) -> Tensor: ...

    def features_jet(self, x: Tensor, second: Second = "axes") -> Jet: ...

    def output_coefficients(self) -> Tensor: ...

    def set_output_coefficients(self, coefficients: Tensor) -> None: ...


def check_second(second: str) -> None:
    """Raise InputError for a kind of second derivative that does not exist."""
    if second not in get_args(Second):
        raise unknown_name("second derivative", second, get_args(Second))


def flat_points(x: Tensor, networks: int | None, dtype: torch.dtype) -> tuple[Tensor, tuple[int, ...]]:
    """Points (..., d) as (B, d), or (N or 1, ..., d) as (N or 1, B, d), and the shape that B came from.

    Raises InputError for points without an axis per network and for another precision than the field's.
    """
    lead = 0 if networks is None else 1
    if x.ndim < 1 + lead or (lead and x.shape[0] not in (1, networks)):
        raise InputError(f"points of shape {tuple(x.shape)} for {networks} networks: give ({networks} or 1, ..., axes)")
    if x.dtype != dtype:
        raise InputError(f"points are {x.dtype} and the field is {dtype}: convert one of them with .to()")
    return x.reshape(*x.shape[:lead], -1, x.shape[-1]), tuple(x.shape[lead:-1])
