"""Field and Jet: what every u(x) offers, and how derivatives are laid out."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from cpikan.errors import InputError, unknown_name

Second = Literal["axes", "full", "laplacian", "none"]


class Jet(NamedTuple):
    """A field with its derivatives by the physical coordinates at points (..., d).

    Attributes:
        value: (..., outputs).
        gradient: first derivatives (..., outputs, d).
        second: as was asked for: "axes" the unmixed second derivatives (..., outputs, d); "full" the Hessian (..., outputs,
            d, d); "laplacian" the sum of the unmixed ones (..., outputs), which costs one stream instead of d; "none" an
            empty (..., outputs, 0).
    """

    value: Tensor
    gradient: Tensor
    second: Tensor


@runtime_checkable
class Field(Protocol):
    """A function of d coordinates with ``outputs`` components; a torch module whose parameters are its shape."""

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point, d."""
        ...

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        ...

    @property
    def networks(self) -> int | None:
        """Count the independent fields held as one, N; None for one field.

        For N fields points are (N, ..., d), or (1, ..., d) for the same points in all, and results are (N, ..., outputs).
        """
        ...

    def __call__(self, x: Float[Tensor, "*#points d"]) -> Float[Tensor, "*#points outputs"]:
        """Evaluate the field.

        Arguments:
            x: physical points (..., d), in the precision of the field.

        Returns:
            Values (..., outputs).

        Raises:
            InputError: for points of other axes or of another precision.
        """
        ...

    def jet(self, x: Float[Tensor, "*#points d"], second: Second = "axes") -> Jet:
        """Evaluate the field with its exact derivatives by the physical coordinates, in one pass.

        Arguments:
            x: physical points (..., d), in the precision of the field.
            second: which second derivatives are wanted, see `Jet`.

        Returns:
            Value, first and second derivatives at the points.

        Raises:
            InputError: for points of other axes or of another precision, and second derivatives that do not exist.
        """
        ...


@runtime_checkable
class LinearOutput(Protocol):
    """A field that is linear in its last coefficients: u(x) = features(x) @ coefficients, which least squares can find."""

    def features(self, x: Float[Tensor, "*#points d"]) -> Float[Tensor, "*#points features"]:
        """Evaluate the features (..., F) at points (..., d)."""
        ...

    def features_jet(self, x: Float[Tensor, "*#points d"], second: Second = "axes") -> Jet:
        """Evaluate the features with their derivatives, (..., F), (..., F, d), and second ones as in `Jet`."""
        ...

    def output_coefficients(self) -> Float[Tensor, "*networks features outputs"]:
        """Return the coefficients (F, outputs), with a leading N for N fields."""
        ...

    def set_output_coefficients(self, coefficients: Float[Tensor, "*networks features outputs"]) -> None:
        """Put coefficients of that shape in place; raises InputError for another shape."""
        ...


def check_second(second: str) -> None:
    """Raise InputError for a kind of second derivative that does not exist."""
    if second not in get_args(Second):
        raise unknown_name("second derivative", second, get_args(Second))


def flat_points(x: Tensor, networks: int | None, dtype: torch.dtype) -> tuple[Tensor, tuple[int, ...]]:
    """Flatten points (..., d) to (B, d), or (N or 1, ..., d) as (N or 1, B, d), and the shape that B came from.

    Raises InputError for points without an axis per network and for another precision than the field's.
    """
    lead = 0 if networks is None else 1
    if x.ndim < 1 + lead or (lead and x.shape[0] not in (1, networks)):
        raise InputError(f"points of shape {tuple(x.shape)} for {networks} networks: give ({networks} or 1, ..., axes)")
    if x.dtype != dtype:
        raise InputError(f"points are {x.dtype} and the field is {dtype}: convert one of them with .to()")
    return x.reshape(*x.shape[:lead], -1, x.shape[-1]), tuple(x.shape[lead:-1])
