"""MappedCPIKAN: a Chebyshev network of functions of the coordinates, such as cosine and sine of a period."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from cpikan.errors import InputError
from cpikan.fields.constrained import function_jet
from cpikan.fields.layered import START, Degrees, Start, Widths
from cpikan.fields.protocol import Jet, Second, check_second, flat_points
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.fields.streams import Streams


@dataclass(frozen=True)
class PointMap:
    """A smooth map of points (B, ``dimension``) to (B, m), which lie between ``lower`` and ``upper`` (m,)."""

    function: Callable[[Tensor], Tensor]
    dimension: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    # its jets at points that come again, as those of an objective do, while these live
    _known: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary, compare=False, repr=False)

    def jet(self, x: Tensor, second: Second) -> Jet:
        """Compute the jet of the map, (B, m) with its derivatives."""
        known = self._known.setdefault(x, {})
        if second not in known:
            known[second] = Jet(*(part.detach() for part in function_jet(self.function, x, second)))
        found: Jet = known[second]
        return found


class MappedCPIKAN(ScaledCPIKAN):
    """u(x) = network(E(x)): what E cannot tell apart, u is equal for, and where E has no slope, u has none.

    ``widths`` begin with the number of functions of E, not of coordinates. Derivatives are by the coordinates. Raises
    InputError for widths that begin otherwise.
    """

    def __init__(self, widths: Widths, degree: Degrees, point_map: PointMap, *, start: Start | None = START) -> None:
        if widths[0] != len(point_map.lower):
            raise InputError(f"widths {list(widths)} behind {len(point_map.lower)} functions: begin with as many")
        super().__init__(widths, degree, (point_map.lower, point_map.upper), start=start)
        self.point_map = point_map

    @classmethod
    def around(cls, network: Any, point_map: PointMap) -> MappedCPIKAN:
        """Take over the coefficients of a network of the functions' values."""
        found = cls(network.widths, network.degree, point_map, start=None)
        found.load_state_dict(network.state_dict())
        return found

    def bare(self) -> ScaledCPIKAN:
        """Give the network of the functions' values, with these coefficients."""
        found = ScaledCPIKAN(self.widths, self.degree, (self.point_map.lower, self.point_map.upper), start=None)
        found.load_state_dict(self.state_dict())
        return found

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return self.point_map.dimension

    def _enter(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        flat, batch = flat_points(x, None, self.scaling.lower.dtype)
        return self.scaling(self.point_map.function(flat)), batch

    def start_streams(self, x: Tensor, second: Second) -> tuple[Streams, tuple[int, ...]]:
        """Start streams: the scaled functions with their derivatives by the physical coordinates."""
        check_second(second)
        flat, batch = flat_points(x, None, self.scaling.lower.dtype)
        flat = x if x.ndim == 2 else flat  # itself: the map knows points that come again
        jet, slopes = self.point_map.jet(flat, second), self.scaling.slopes()
        bends = {
            "axes": lambda part: part.movedim(-1, 0),
            "laplacian": lambda part: part[None],
            "none": lambda part: part.movedim(-1, 0),
            "full": lambda part: _pairs(part),
        }[second](jet.second)
        first = jet.gradient.movedim(-1, 0)
        return Streams(self.scaling(jet.value)[None], first * slopes, bends * slopes, second), batch


def _pairs(second: Tensor) -> Tensor:
    """Lay a Hessian (B, m, d, d) out by pairs of axes, (d (d + 1) / 2, B, m)."""
    rows, columns = torch.triu_indices(second.shape[-1], second.shape[-1])
    return second[..., rows, columns].movedim(-1, 0)
