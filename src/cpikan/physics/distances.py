"""Approximate distances: smooth functions that vanish on edges with slope 1, and what joins them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.physics.edges import Arc, Edge, Segment
from cpikan.physics.outline import Outline

Distance = Callable[[Tensor], Tensor]
_TINY = 1e-280  # where several distances vanish, at a vertex, there is no quotient
_CHECKED = 200  # points


def distance_to(outline: Outline, parts: Sequence[str] | None = None) -> Distance:
    """Make the distance (B, 2) -> (B,) of parts of an outline, of all of it by default: 0 there with slope 1, above 0 inside.

    Distances of edges are joined by the R-equivalence 1 / sum 1 / phi, which is normalised to order 1 (Rvachev et al. 2001;
    Sukumar and Srivastava, CMAME 389, 114333, 2022). It is smooth inside, where a signed distance has kinks.
    """
    chosen = [edge for name, edge in outline.edges if parts is None or name in parts]
    single = [edge_distance(edge, outline.size) for edge in chosen]
    return lambda x: joined([one(x) for one in single])


def joined(distances: Sequence[Tensor]) -> Tensor:
    """Join distances (B,) of pieces to that of all, 1 / sum 1 / phi, as a quotient of products."""
    if len(distances) == 1:
        return distances[0]
    others = _others(distances)
    return distances[0] * others[0] / (sum(others[1:], others[0]) + _TINY)


def shares(distances: Sequence[Tensor]) -> list[Tensor]:
    """Weigh by inverse distances, (B,) each: shares of 1, of which that of a piece is 1 on it (transfinite interpolation)."""
    others = _others(distances)
    total = sum(others[1:], others[0]) + _TINY
    return [one / total for one in others]


def _others(distances: Sequence[Tensor]) -> list[Tensor]:
    """Multiply all but one, for each."""
    found = []
    for number in range(len(distances)):
        product = torch.ones_like(distances[0])
        for other, distance in enumerate(distances):
            product = product if other == number else product * distance
        found.append(product)
    return found


def edge_distance(edge: Edge, size: float) -> Distance:
    """Make the distance of one edge: that of its line or circle, trimmed to the edge in units of the region's size."""
    line, trim = _of_segment(edge) if isinstance(edge, Segment) else _of_arc(edge)  # type: ignore[arg-type]
    if trim is None:
        return line
    return lambda x: size * _trimmed(line(x) / size, trim(x) / size)


def _of_segment(edge: Segment) -> tuple[Distance, Distance]:
    """Give the signed distance of the line, and the disc on the edge: (L / 2)^2 - |x - middle|^2, over L."""
    start, end = torch.tensor(edge.start, dtype=torch.float64), torch.tensor(edge.end, dtype=torch.float64)
    length, middle = edge.length, 0.5 * (start + end)
    left = torch.stack([start[1] - end[1], end[0] - start[0]]) / length
    return (
        lambda x: (x - start) @ left,
        lambda x: ((length / 2) ** 2 - (x - middle).square().sum(-1)) / length,
    )


def _of_arc(edge: Arc) -> tuple[Distance, Distance | None]:
    """Give (R^2 - r^2) / 2 R, and the half plane that cuts the arc off its circle; None for a full circle."""
    centre, sign = torch.tensor(edge.centre, dtype=torch.float64), 1.0 if edge.sweep_rad > 0 else -1.0

    def circle(x: Tensor) -> Tensor:
        return sign * (edge.radius**2 - (x - centre).square().sum(-1)) / (2 * edge.radius)

    if edge.closed:
        return circle, None
    middle = torch.from_numpy(edge.at(np.array([0.0, 0.5, 1.0])))
    out = (middle[1] - centre) / edge.radius
    return circle, lambda x: (x - middle[0]) @ out


def _trimmed(f: Tensor, t: Tensor) -> Tensor:
    """Cut the zeros of f to where t >= 0: sqrt(f^2 + h^2) with h = (sqrt(t^2 + f^4) - t) / 2 (Rvachev's trimming).

    Beside the edge h is f^4 / 2 (sqrt + t): divided by f, so that the root has a slope where f vanishes.
    """
    beside = t > 0
    reach = torch.where(beside, t, torch.ones_like(t))
    size = torch.where(f >= -1e-12, f, -f)  # rounding on the edge itself must not turn the slope round
    ratio = size**3 / (2 * ((reach.square() + size**4).sqrt() + reach))
    near = size * (1 + ratio.square()).sqrt()
    back = torch.where(beside, -torch.ones_like(t), t)
    away = torch.where(beside, torch.ones_like(f), f)
    far = (away.square() + 0.25 * ((back.square() + away**4 + _TINY).sqrt() - back).square() + _TINY).sqrt()
    return torch.where(beside, near, far)


def check_distance(distance: Distance, inside: Tensor, on: Tensor, what: str) -> None:
    """Raise InputError for a distance that is not above 0 at points inside (n, 2), or not 0 at points ``on`` its parts."""
    with torch.no_grad():
        within, there = distance(inside[:_CHECKED]), distance(on[:_CHECKED])
    if within.shape != (len(inside[:_CHECKED]),):
        raise InputError(
            f"distance of {what} has shape {tuple(within.shape)} for {len(inside[:_CHECKED])} points: give (n,)"
        )
    lowest = int(within.nan_to_num(nan=-1.0).argmin())
    if not float(within[lowest]) > 0:
        place = tuple(round(v, 4) for v in inside[lowest].tolist())
        raise InputError(
            f"distance of {what} is {float(within[lowest]):.3g} at {place}, inside: give one that is above 0 inside and 0 on "
            "the boundary alone"
        )
    if not float(there.abs().max()) <= 1e-9 * float(within.max()):
        raise InputError(
            f"distance of {what} is {float(there.abs().max()):.3g} on the boundary: give one that is 0 there"
        )
