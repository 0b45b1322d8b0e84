"""CornerField: a field with the singular functions of re-entrant corners beside its features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet, LinearOutput, Second, check_second

TERMS = 6
_TINY = 1e-30  # radius: derivatives are infinite in the corner itself


class Place(NamedTuple):
    """A corner: where, the direction of the side that the region lies left of, and the angle inside."""

    at: tuple[float, float]
    start_rad: float
    opening_rad: float


class CornerField(nn.Module):
    """u(x) = field(x) + sum over corners and k of c_jk r_j^(k pi / w_j) sin(k pi theta_j / w_j).

    ``corners`` are like ``Place``; theta is measured from the start. The
    functions are harmonic and vanish on both sides of their corner; powers that are whole numbers are polynomials and left
    out. ``field`` must have a linear output, two axes and no batch. Raises InputError for other fields and for no corner.
    Grisvard, Elliptic Problems in Nonsmooth Domains (1985), section 2.3.
    """

    dimension = 2
    networks = None
    singular: nn.Parameter

    def __init__(self, field: Any, corners: Sequence[Any]) -> None:
        super().__init__()
        linear: bool = isinstance(field, LinearOutput)
        if not linear or field.networks is not None or field.dimension != 2:
            raise InputError(
                f"{type(field).__name__} beside corners: give a single field of two axes, linear in its output"
            )
        if not corners:
            raise InputError("no re-entrant corner in this region: use the field alone")
        self.field: Any = field
        self._places: list[tuple[float, ...]] = [(*one.at, one.start_rad, one.opening_rad) for one in corners]
        self._powers: list[list[float]] = [_powers(one.opening_rad) for one in corners]
        count = sum(len(powers) for powers in self._powers)
        self.singular = nn.Parameter(torch.zeros(count, field.outputs, dtype=torch.float64))

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return int(self.singular.shape[1])

    @property
    def scaling(self) -> Any:
        """Return the scaling of the field without its corner terms."""
        return self.field.scaling

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate values (..., outputs) at physical points (..., 2)."""
        value: Tensor = self.field(x) + self._singular(x, "none").value @ self.singular
        return value

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate value and derivatives, one pass; see ``Jet`` for ``second``. Infinite in a corner itself."""
        plain: Jet = self.field.jet(x, second)
        basis = self._singular(x, second)
        parts = (torch.einsum("...ft,fo->...ot", _flat(b, x), self.singular) for b in basis)
        return Jet(*(p + q.reshape(p.shape) for p, q in zip(plain, parts, strict=True)))

    def features(self, x: Tensor) -> Tensor:
        """Evaluate the features of the field, then the singular functions, (..., F)."""
        own: Tensor = self.field.features(x)
        return torch.cat([own, self._singular(x, "none").value], dim=-1)

    def features_jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate ``features`` with their derivatives."""
        own: Jet = self.field.features_jet(x, second)
        lead = x.ndim - 1
        return Jet(*(torch.cat([a, b], dim=lead) for a, b in zip(own, self._singular(x, second), strict=True)))

    def output_coefficients(self) -> Tensor:
        """Return the coefficients of the features, (F, outputs)."""
        own: Tensor = self.field.output_coefficients()
        return torch.cat([own, self.singular])

    @torch.no_grad()
    def set_output_coefficients(self, coefficients: Tensor) -> None:
        """Put the coefficients of the features in place."""
        own = coefficients.shape[0] - len(self.singular)
        if tuple(coefficients.shape) != tuple(self.output_coefficients().shape):
            raise InputError(
                f"output coefficients of shape {tuple(coefficients.shape)}: give {tuple(self.output_coefficients().shape)}"
            )
        self.field.set_output_coefficients(coefficients[:own])
        self.singular.copy_(coefficients[own:])

    def config(self) -> dict[str, Any]:
        """Write down the corners; the field is stored with its own."""
        return {"corners": [list(place) for place in self._places]}

    @classmethod
    def from_config(cls, config: dict[str, Any], field: nn.Module) -> CornerField:
        """Build corners as ``config`` wrote them, beside a field."""
        places = [Place((x, y), start, opening) for x, y, start, opening in config["corners"]]
        return cls(field, places)

    def _singular(self, x: Tensor, second: Second) -> Jet:
        """Compute the functions (..., F) with their derivatives as in ``jet``."""
        check_second(second)
        found = [
            _corner_jet(x, place, torch.tensor(powers, dtype=x.dtype, device=x.device), second)
            for place, powers in zip(self._places, self._powers, strict=True)
        ]
        lead = x.ndim - 1
        return Jet(*(torch.cat(parts, dim=lead) for parts in zip(*found, strict=True)))


def _powers(opening: float) -> list[float]:
    powers = [k * math.pi / opening for k in range(1, 2 * TERMS)]
    return [p for p in powers if abs(p - round(p)) > 1e-9][:TERMS]


def _corner_jet(x: Tensor, place: tuple[float, ...], power: Tensor, second: Second) -> Jet:
    """Compute Im e^(i a) z^p and its derivatives: u_x = Im f', u_y = Re f', u_xx = -u_yy = Im f'', u_xy = Re f''.

    z is turned so that the region's middle direction is the positive real axis: the cut lies outside.
    """
    at_x, at_y, start, opening = place
    turn = start + opening / 2
    dx, dy = x[..., 0] - at_x, x[..., 1] - at_y
    across, along = dy * math.cos(turn) - dx * math.sin(turn), dx * math.cos(turn) + dy * math.sin(turn)
    radius = torch.sqrt(dx * dx + dy * dy).clamp_min(_TINY)[..., None]
    angle = torch.atan2(across, along)[..., None]

    def imaginary(p: Tensor, quarter: float, turned: float) -> Tensor:
        """Compute Im (or, a quarter turn on, Re) of e^(i power opening / 2) z^p e^(-i turned turn)."""
        return radius**p * torch.sin(p * angle + power * opening / 2 - turned * turn + quarter)

    half = math.pi / 2
    value = imaginary(power, 0.0, 0.0)
    gradient = torch.stack([power * imaginary(power - 1, quarter, 1.0) for quarter in (0.0, half)], dim=-1)
    factor = power * (power - 1)
    xx, xy = factor * imaginary(power - 2, 0.0, 2.0), factor * imaginary(power - 2, half, 2.0)
    if second == "laplacian":
        curve = torch.zeros_like(value)
    elif second == "none":
        curve = value[..., None][..., :0]
    elif second == "axes":
        curve = torch.stack([xx, -xx], dim=-1)
    else:
        curve = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, -xx], -1)], dim=-1)
    return Jet(value, gradient, curve)


def _flat(part: Tensor, x: Tensor) -> Tensor:
    """Flatten the axes behind F: (..., F, rest)."""
    lead = x.shape[:-1]
    tail = part.shape[len(lead) + 1 :]
    return part.reshape(*part.shape[: len(lead) + 1], math.prod(tail))
