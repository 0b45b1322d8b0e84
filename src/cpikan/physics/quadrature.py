"""Quadrature: points and weights that integrate smooth functions over a region, or over a part of its boundary."""

from __future__ import annotations

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.physics.outline import Outline, outline_of
from cpikan.physics.regions import Box, Region


def quadrature(region: Region, nodes: int = 16, on: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Place Gauss-Legendre points (n, d) with weights (n,), whose sum is the measure of a region, or of its part ``on``.

    A box has ``nodes`` per axis; an outline so many on each chord of so many upright lines between two ends of edges.
    Raises InputError for fewer nodes than one, a part that is none, and other regions.
    """
    if nodes < 1:
        raise InputError(f"{nodes} nodes of a quadrature: give at least 1")
    if on is not None and on not in region.parts:
        raise unknown_name("part of the boundary", on, region.parts)
    if isinstance(region, Box):
        return _of_box(region, nodes) if on is None else _of_end(region, nodes, on)
    outline = outline_of(region)
    return outline.quadrature(nodes) if on is None else _of_part(outline, nodes, on)


def _unit(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Place Gauss-Legendre points and weights on [0, 1]."""
    at, weights = np.polynomial.legendre.leggauss(nodes)
    return 0.5 * (at + 1), 0.5 * weights


def _grid(nodes: int, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Place the product rule on the unit cube of so many axes."""
    at, weights = _unit(nodes)
    places = np.stack(np.meshgrid(*[at] * axes, indexing="ij"), axis=-1).reshape(-1, axes) if axes else np.zeros((1, 0))
    shares = np.ones(1)
    for _ in range(axes):
        shares = np.multiply.outer(shares, weights).ravel()
    return places, shares


def _of_box(region: Box, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    places, shares = _grid(nodes, len(region.lower))
    return region.inside(places, False), shares * np.prod(np.subtract(region.upper, region.lower))


def _of_end(region: Box, nodes: int, on: str) -> tuple[np.ndarray, np.ndarray]:
    places, shares = _grid(nodes, len(region.lower) - 1)
    points, normals = region.on(on, places, False)
    along = np.where(np.abs(normals[0]) > 0, 1.0, np.subtract(region.upper, region.lower))
    return points, shares * np.prod(along)


def _of_part(outline: Outline, nodes: int, on: str) -> tuple[np.ndarray, np.ndarray]:
    """Place Gauss-Legendre points along edges, and even ones on full circles, which are exact for waves round them."""
    even = (np.arange(2 * nodes) + 0.5) / (2 * nodes), np.full(2 * nodes, 0.5 / nodes)
    edges = [edge for name, edge in outline.edges if name == on]
    rules = [even if edge.closed else _unit(nodes) for edge in edges]
    pairs = list(zip(edges, rules, strict=True))
    return (
        np.concatenate([edge.at(at) for edge, (at, _) in pairs]),
        np.concatenate([edge.length * weights for edge, (_, weights) in pairs]),
    )
