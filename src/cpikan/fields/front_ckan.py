"""FrontCKAN: the coordinates, and beside them each front's stretched one, then Chebyshev layers with tanh between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import ChainField, Degrees, Held, Through, Widths, checked_degrees
from cpikan.fields.scaling import Domain
from cpikan.fields.streams import Streams, side_by_side


@dataclass(frozen=True)
class Front:
    """A place where a solution is sharp: its axis, centre and width, the last two in the scaled coordinate on [-1, 1].

    Raises InputError for a centre outside and a width that is not positive.
    """

    axis: int
    centre: float
    width: float

    def __post_init__(self) -> None:
        if not (-1 <= self.centre <= 1 and 0 < self.width < math.inf):
            raise InputError(
                f"front at {self.centre:g} of width {self.width:g}: give a place from -1 to 1 and a width above 0"
            )

    def stretched(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stretch scaled coordinates so that the front is as wide as the rest, with two derivatives.

        z is asinh((x - centre) / width), brought to [-1, 1]: a function with singularities at centre +- i width is as
        smooth in z as one without in x (Tee and Trefethen, SIAM J. Sci. Comput. 28, 2006).
        """
        low, high = (math.asinh((end - self.centre) / self.width) for end in (-1.0, 1.0))
        share, away = 2 / (high - low), x - self.centre
        inverse = torch.rsqrt(away * away + self.width**2)
        slope = share * inverse
        value = share * (torch.asinh(away / self.width) - low) - 1
        return value, slope, -slope * away * inverse * inverse


class FrontCKAN(ChainField):
    """u(x) = layers(x^, z_1(x^), z_2(x^), ...) with x^ the scaled coordinates and a stretched one for every front.

    The stretched coordinate shows the layers what happens inside of a front, the plain one what happens outside, as inner and
    outer variables of matched asymptotics do. ``fronts`` are of scaled coordinates, common to all ``networks``; without
    fronts it is a ScaledCPIKAN. Raises InputError for a front on an axis that is not there.
    """

    settings = ("degree", "fronts")

    def __init__(
        self,
        widths: Widths,
        degree: Degrees = 5,
        domain: Domain = None,
        *,
        fronts: Sequence[Front | Sequence[float]] = (),
        **held: Unpack[Held],
    ) -> None:
        self.degree = checked_degrees(degree, len(widths) - 1)
        found = [one if isinstance(one, Front) else Front(int(one[0]), float(one[1]), float(one[2])) for one in fronts]
        for one in found:
            if not 0 <= one.axis < widths[0]:
                raise InputError(f"front on axis {one.axis} of {widths[0]}: give one from 0 to {widths[0] - 1}")
        self.fronts = tuple(astuple(one) for one in found)
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the Chebyshev layers, the first with an input more for every front."""
        nodes = [self.widths[0] + len(self.fronts), *self.widths[1:]]
        pairs = zip(itertools.pairwise(nodes), self.degree, strict=True)
        self.layers = nn.ModuleList(ChebyshevLayer(a, b, k, networks) for (a, b), k in pairs)

    def _body(self, scaled: Tensor) -> Tensor:
        more = [one.stretched(scaled[..., one.axis : one.axis + 1])[0] for one in self._fronts()]
        return super()._body(torch.cat([scaled, *more], dim=-1))

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        parts = [scaled]
        for one in self._fronts():
            alone = scaled.mapped(lambda part, axis=one.axis: part[..., axis : axis + 1])  # type: ignore[misc]
            parts.append(alone.through(*one.stretched(alone.value)))
        return super()._body_streams(side_by_side(parts), through)

    def _fronts(self) -> list[Front]:
        return [Front(*one) for one in self.fronts]
