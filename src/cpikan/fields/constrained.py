"""ConstrainedField: u = lift + distance * network, which holds boundary values whatever the network's parameters are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import vjp
from torch.utils.weak import WeakTensorKeyDictionary

from cpikan.fields.protocol import Field, Jet, Second

if TYPE_CHECKING:
    from cpikan.fields.mapped import PointMap

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ansatz:
    """u = lift(x) + distance(x) v(x), output by output: both functions take points (B, d) and give (B, outputs).

    The distance vanishes where u is bound to the lift (Lagaris, Likas and Fotiadis, IEEE Trans. Neural Netw. 9, 987, 1998);
    outputs without such a bound have the lift 0 and the distance 1. Where slopes or periods are held, v is a network of the
    functions of a ``point_map`` (`MappedCPIKAN`). ``embedded`` tells that it was made to hold slopes and periods too,
    ``parity`` along which axes each output is even (1) or odd (-1) by its form, and ``free`` at the ends of which axes nothing
    is held.
    """

    lift: Function
    distance: Function
    point_map: PointMap | None = None
    embedded: bool = False
    parity: tuple[tuple[int, tuple[int, ...]], ...] = ()
    free: tuple[int, ...] = ()
    # what both functions are at points that come again, as those of an objective do, while these live
    _known: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary, compare=False, repr=False)

    def value(self, network: Tensor, x: Tensor) -> Tensor:
        """Compute u (B, outputs) from the network's values there."""
        return self.lift(x) + self.distance(x) * network

    def whole(self, network: Any) -> nn.Module:
        """Make the field u of a network v."""
        return ConstrainedField(network, self)

    def jet(self, network: Jet, x: Tensor, second: Second = "axes") -> Jet:
        """Compute the jet of u at points (B, d) from that of the network, by the product rule."""
        lift, distance = self._jets(x, second)
        slope = distance.gradient * network.value[..., None] + distance.value[..., None] * network.gradient
        return Jet(
            lift.value + distance.value * network.value,
            lift.gradient + slope,
            lift.second + _bend(network, distance, second),
        )

    def _jets(self, x: Tensor, second: Second) -> tuple[Jet, Jet]:
        primal, tangent = forward_ad.unpack_dual(x)
        if tangent is not None:
            return self._dual_jets(x, primal, tangent, second)
        known = self._known.setdefault(x, {})
        if second not in known:
            known[second] = self._made(x, second)
        found: tuple[Jet, Jet] = known[second]
        return found

    def _made(self, x: Tensor, second: Second) -> tuple[Jet, Jet]:
        return function_jet(self.lift, x, second), function_jet(self.distance, x, second)

    def _dual_jets(self, x: Tensor, primal: Tensor, tangent: Tensor, second: Second) -> tuple[Jet, Jet]:
        """Give the jets with tangents: kept too, for points that are, where all go along one direction."""
        place = _place(primal)
        kept = next((k for k in self._known if place and _place(k) == place and k.shape == primal.shape), None)
        if kept is None or not bool((tangent == tangent[:1]).all()):
            return self._made(x, second)
        plain, known, key = self._jets(kept, second), self._known[kept], (second, *tangent[0].tolist())
        if key not in known:
            pairs = [[forward_ad.unpack_dual(part) for part in jet] for jet in self._made(x, second)]
            known[key] = [[torch.zeros_like(part) if slope is None else slope for part, slope in jet] for jet in pairs]
        found = zip(plain, known[key], strict=True)
        lift, distance = (Jet(*map(forward_ad.make_dual, jet, slopes)) for jet, slopes in found)
        return lift, distance


def _place(x: Tensor) -> int | None:
    """Give where the numbers of a tensor are; None within a transform of ``torch.func``, where they have no place."""
    try:
        return x.data_ptr()
    except RuntimeError:
        return None


class ConstrainedField(nn.Module):
    """A network behind an ansatz: a field whose parameters are those of the network."""

    networks = None

    def __init__(self, network: Any, ansatz: Ansatz) -> None:
        super().__init__()
        self.network, self.ansatz = network, ansatz

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point, d."""
        return int(self.network.dimension)

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return int(self.network.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate u (..., outputs) at points (..., d)."""
        flat = x.reshape(-1, x.shape[-1])
        return self.ansatz.value(self.network(flat), flat).reshape(*x.shape[:-1], self.outputs)

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate u with its derivatives, as `Field.jet`."""
        flat = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])  # itself: the ansatz knows points that come again
        found = self.ansatz.jet(self.network.jet(flat, second), flat, second)
        return Jet(*(part.reshape(*x.shape[:-1], *part.shape[1:]) for part in found))


def function_jet(function: Function, x: Tensor, second: Second = "axes") -> Jet:
    """Compute the jet of a function (B, d) -> (B, outputs), whose rows are each of their own point; a field has its own."""
    if isinstance(function, nn.Module) and isinstance(function, Field):
        with torch.no_grad():
            return function.jet(x, second)
    value, gradient = function(x), _slopes(function, x)
    if second == "none":
        return Jet(value, gradient, value.new_zeros(*value.shape, 0))
    bends = _slopes(lambda points: _slopes(function, points).flatten(1), x).reshape(*gradient.shape, x.shape[-1])
    if second == "full":
        return Jet(value, gradient, bends)
    axes = bends.diagonal(dim1=-2, dim2=-1)
    return Jet(value, gradient, axes if second == "axes" else axes.sum(dim=-1))


def _slopes(function: Function, x: Tensor) -> Tensor:
    """Differentiate a function (B, d) -> (B, n) by the points, (B, n, d): one pass back for each of its n values."""
    value, pull = vjp(function, x)[:2]
    ones = torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)
    return torch.stack([pull(one.expand_as(value))[0] for one in ones], dim=-2)


def _bend(v: Jet, distance: Jet, second: Second) -> Tensor:
    """Compute the second derivatives of distance * v."""
    if second == "none":
        return v.second
    if second == "laplacian":
        return distance.second * v.value + 2 * (distance.gradient * v.gradient).sum(dim=-1) + distance.value * v.second
    if second == "axes":
        value, weight = v.value[..., None], distance.value[..., None]
        return distance.second * value + 2 * distance.gradient * v.gradient + weight * v.second
    mixed = distance.gradient[..., :, None] * v.gradient[..., None, :]
    value, weight = v.value[..., None, None], distance.value[..., None, None]
    return distance.second * value + mixed + mixed.mT + weight * v.second
