"""Quadrature: points and weights that integrate smooth functions over a region, or over a part of its boundary."""

from __future__ import annotations

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.physics.outline import Outline, outline_of
from cpikan.physics.quadrature import Rule, over_box, rule, stretched
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


def _of_box(region: Box, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    found = over_box(rule("gauss-legendre", nodes), region.lower, region.upper)
    return found.nodes, found.weights


def _of_end(region: Box, nodes: int, on: str) -> tuple[np.ndarray, np.ndarray]:
    axes = len(region.lower) - 1
    unit = (
        over_box(rule("gauss-legendre", nodes), [0.0] * axes, [1.0] * axes)
        if axes
        else Rule(np.zeros((1, 0)), np.ones(1))
    )
    points, normals = region.on(on, unit.nodes, False)
    along = np.where(np.abs(normals[0]) > 0, 1.0, np.subtract(region.upper, region.lower))
    return points, unit.weights * np.prod(along)


def _of_part(outline: Outline, nodes: int, on: str) -> tuple[np.ndarray, np.ndarray]:
    """Place Gauss-Legendre points along edges, and even ones on full circles, which are exact for waves round them."""
    even = (np.arange(2 * nodes) + 0.5) / (2 * nodes), np.full(2 * nodes, 0.5 / nodes)
    edges = [edge for name, edge in outline.edges if name == on]
    gauss = stretched(rule("gauss-legendre", nodes), 0.0, 1.0)
    rules = [even if edge.closed else (gauss.nodes[:, 0], gauss.weights) for edge in edges]
    pairs = list(zip(edges, rules, strict=True))
    return (
        np.concatenate([edge.at(at) for edge, (at, _) in pairs]),
        np.concatenate([edge.length * weights for edge, (_, weights) in pairs]),
    )
