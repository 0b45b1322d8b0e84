"""Polynomials on a box, orthonormal there, with their derivatives: a basis that no solver used."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet, Second
from cpikan.physics.regions import Box, Region


class Polynomials:
    """Products of Legendre polynomials of total degree below ``order``, (K,) of them, of mean square 1 over the box."""

    def __init__(self, lower: tuple[float, ...], upper: tuple[float, ...], order: int) -> None:
        self._lower, self._upper = np.asarray(lower), np.asarray(upper)
        self.powers = np.array(sorted(_powers(len(lower), order), key=lambda p: (sum(p), p)))
        self._order = order

    def __len__(self) -> int:
        return len(self.powers)

    def jet(self, x: Tensor, second: Second) -> Jet:
        """Evaluate all at points (B, d): values (B, K), gradients (B, K, d), second derivatives as in ``Jet``."""
        half = (self._upper - self._lower) / 2
        scaled = (x.numpy() - self._lower) / half - 1
        axes = scaled.shape[1]
        series = [_legendre(scaled[:, a], self._order) for a in range(axes)]
        tables = [  # by derivative and axis, (B, K)
            [series[a][n][:, self.powers[:, a]] / half[a] ** n for a in range(axes)] for n in range(3)
        ]

        def product(*orders: int) -> np.ndarray:
            found = tables[orders[0]][0]
            for axis, order in enumerate(orders[1:], start=1):
                found = found * tables[order][axis]
            return found

        unit = np.eye(axes, dtype=int)
        gradient = np.stack([product(*unit[a]) for a in range(axes)], axis=-1)
        flat = {
            "axes": lambda: np.stack([product(*(2 * unit[a])) for a in range(axes)], axis=-1),
            "laplacian": lambda: sum(product(*(2 * unit[a])) for a in range(axes)),
            "full": lambda: np.stack(
                [np.stack([product(*(unit[a] + unit[b])) for b in range(axes)], axis=-1) for a in range(axes)], axis=-2
            ),
            "none": lambda: np.empty((*gradient.shape[:2], 0)),
        }
        return Jet(*(torch.from_numpy(part) for part in (product(*(0,) * axes), gradient, flat[second]())))


def _powers(axes: int, order: int) -> list[tuple[int, ...]]:
    """List the powers of so many axes whose sum is below ``order``."""
    if not axes:
        return [()]
    return [(first, *rest) for first in range(order) for rest in _powers(axes - 1, order - first)]


def _legendre(x: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate Legendre polynomials of mean square 1 on [-1, 1] with two derivatives, (B, order) each, by recurrences."""
    value, slope, curve = (np.zeros((order, len(x))) for _ in range(3))
    value[0], value[1], slope[1] = 1.0, x, 1.0
    for k in range(1, order - 1):
        value[k + 1] = ((2 * k + 1) * x * value[k] - k * value[k - 1]) / (k + 1)
        slope[k + 1] = slope[k - 1] + (2 * k + 1) * value[k]
        curve[k + 1] = curve[k - 1] + (2 * k + 1) * slope[k]
    size = np.sqrt(2 * np.arange(order) + 1)
    return value.T * size, slope.T * size, curve.T * size


class BrokenPolynomials:
    """Polynomials of their own on every piece between the breaks of an axis, (K,) in all; the first is 1 everywhere.

    A point on a break belongs to the piece below it, as in `Box`.
    """

    def __init__(self, region: Box, order: int) -> None:
        self._axis = region.axes.index(region.breaks[0][0])
        self._breaks = [place for _, place in region.breaks]
        self._pieces = [Polynomials(piece.lower, piece.upper, order) for piece in pieces_of(region)]

    def __len__(self) -> int:
        return sum(len(piece) for piece in self._pieces)

    def jet(self, x: Tensor, second: Second) -> Jet:
        """Evaluate all at points (B, d), zero outside of each one's piece."""
        owner = torch.bucketize(x[:, self._axis].contiguous(), torch.tensor(self._breaks, dtype=x.dtype))
        parts = []
        for number, piece in enumerate(self._pieces):
            inside = (owner == number).to(x.dtype)
            jet = piece.jet(x, second)
            parts.append(Jet(*(part * inside.reshape(-1, *[1] * (part.ndim - 1)) for part in jet)))
        value, gradient, curve = (torch.cat([getattr(part, name) for part in parts], dim=1) for name in Jet._fields)
        value[:, 0] = 1.0
        return Jet(value, gradient, curve)


def pieces_of(region: Box) -> list[Box]:
    """List the boxes that the breaks of one axis leave, from the lower end on."""
    if not region.breaks:
        return [region]
    axis = region.axes.index(region.breaks[0][0])
    edges = [region.lower[axis], *(place for _, place in region.breaks), region.upper[axis]]
    found = []
    for low, high in itertools.pairwise(edges):
        lower, upper = list(region.lower), list(region.upper)
        lower[axis], upper[axis] = low, high
        found.append(Box(tuple(lower), tuple(upper), region.axes))
    return found


def polynomials_on(region: Region, functions: int) -> Polynomials | BrokenPolynomials:
    """Make about as many polynomials as ``functions`` on the box around a region, in pieces where it has breaks."""
    pieces, axes = len(getattr(region, "breaks", ())) + 1, len(region.lower)
    order = order_for(axes, functions // pieces)
    if isinstance(region, Box) and region.breaks:
        return BrokenPolynomials(region, order)
    return Polynomials(region.lower, region.upper, order)


def order_for(dimension: int, functions: int) -> int:
    """Choose the largest total order with at most so many functions."""
    order = 2
    while _count(dimension, order + 1) <= functions:
        order += 1
    return order


def _count(dimension: int, order: int) -> int:
    total = 1
    for axis in range(dimension):
        total = total * (order + axis) // (axis + 1)
    return total
