"""Seams: by how much a field that is put together from pieces jumps where they meet; no residual inside a piece tells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.learning.unknowns import network_of
from cpikan.physics.regions import Region, inner_parts

_ASIDE = 1e-9  # of the extent: how far beside a face both sides are looked at
_PLACES = (0.5, 0.113, 0.887)  # along a face


def seams(region: Region, field: nn.Module, unit: Tensor) -> float | None:
    """Compute the jumps across the faces of the pieces in units of ``unit`` (outputs,), the worst output.

    The root mean square over all faces, times how many pieces lie one behind the other: jumps add up on the way. Faces on
    breaks of the region are left to its conditions. None for a field of one piece.
    """
    network = network_of(field)
    if not isinstance(network, PiecewiseChebyshev):
        return None
    lower, upper = network.parts.scaling.lower, network.parts.scaling.upper
    jumps = []
    for axis in range(lower.shape[1]):
        smooth = torch.ones(len(lower), dtype=torch.bool)
        for broken, place in inner_parts(region).values():
            smooth &= (upper[:, axis] - place).abs() > _ASIDE * (1 + abs(place)) if broken == axis else smooth
        jumps.append(_jumps(network, lower[smooth], upper[smooth], axis))
    behind = len(lower) ** (1 / lower.shape[1])
    return behind * float((torch.cat(jumps).square().mean(dim=0).nan_to_num().sqrt() / unit).max())


@torch.no_grad()
def _jumps(network: PiecewiseChebyshev, lower: Tensor, upper: Tensor, axis: int) -> Tensor:
    """Find the jumps at the upper face of every piece along an axis, (pieces, outputs) at a few places each."""
    if not len(lower):
        return lower.new_zeros(0, network.outputs)
    aside = _ASIDE * float(upper[:, axis].max() - lower[:, axis].min())
    found = []
    for share in _PLACES:
        below = lower + share * (upper - lower)
        below[:, axis] = upper[:, axis] - aside
        above = below.clone()
        above[:, axis] += 2 * aside  # outside of all pieces the nearest goes on
        found.append(network(above) - network(below))
    return torch.cat(found)
