"""Quadrature: rules on [-1, 1], and their products over boxes and elements.

| rule | exact for polynomials of degree | for |
|---|---|---|
| gauss-legendre | 2 n - 1 | the plain integral |
| clenshaw-curtis | n - 1 | the plain integral, both ends are nodes |
| fejer | n - 1 | the plain integral, no end is a node |
| gauss-chebyshev | - | integrals of f / sqrt(1 - x^2); here times sqrt(1 - x^2), which leaves O(n^-2) of a plain integral |
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cpikan.errors import InputError, unknown_name


class Rule(NamedTuple):
    """Nodes (n, d) and weights (n,) whose sum is the volume that they stand for."""

    nodes: np.ndarray
    weights: np.ndarray


def rule(name: str, count: int) -> Rule:
    """Make the rule of a name with ``count`` nodes on [-1, 1], nodes (n, 1); raises InputError for unknown names and counts
    below 1 (of clenshaw-curtis below 2)."""
    if name not in RULES:
        raise unknown_name("quadrature", name, RULES)
    least = 2 if name == "clenshaw-curtis" else 1
    if count < least:
        raise InputError(f"{count} nodes of {name}: give at least {least}")
    nodes, weights = RULES[name](count)
    return Rule(nodes[:, None], weights)


def over_box(one: Rule, lower: Sequence[float], upper: Sequence[float]) -> Rule:
    """Take a rule on [-1, 1] to the box between two corners, as a product over its axes: (n^d, d), the last axis fastest."""
    return product([stretched(one, a, b) for a, b in zip(lower, upper, strict=True)])


def stretched(one: Rule, lower: float, upper: float) -> Rule:
    """Take a rule on [-1, 1] to [lower, upper]."""
    half = 0.5 * (upper - lower)
    return Rule(lower + half * (one.nodes + 1), half * one.weights)


def pieced(one: Rule, cuts: Sequence[float] | np.ndarray) -> Rule:
    """Take a rule on [-1, 1] to every interval between rising ``cuts``, one after the other."""
    parts = [stretched(one, a, b) for a, b in itertools.pairwise(cuts)]
    return Rule(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def product(axes: Sequence[Rule]) -> Rule:
    """Multiply rules of single axes: nodes (n1 n2 ..., d) and the products of the weights, the last axis fastest."""
    nodes = np.stack(np.meshgrid(*(axis.nodes[:, 0] for axis in axes), indexing="ij"), axis=-1)
    weights = axes[0].weights
    for axis in axes[1:]:
        weights = np.multiply.outer(weights, axis.weights)
    return Rule(nodes.reshape(-1, len(axes)), weights.reshape(-1))


def _gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(count)


def _clenshaw_curtis(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate at the extreme points of T_(n - 1) (Clenshaw and Curtis 1960)."""
    nodes = -np.cos(np.pi * np.arange(count) / (count - 1))
    return nodes, _interpolatory(nodes)


def _fejer(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate at the zeros of T_n (Fejer 1933, his first rule)."""
    nodes = _chebyshev_zeros(count)
    return nodes, _interpolatory(nodes)


def _gauss_chebyshev(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Weigh every zero of T_n by pi / n, times sqrt(1 - x^2): the integrand f sqrt(1 - x^2) has square roots at its ends."""
    nodes = _chebyshev_zeros(count)
    return nodes, np.pi / count * np.sqrt(1 - nodes**2)


def _chebyshev_zeros(count: int) -> np.ndarray:
    return -np.cos(np.pi * (np.arange(count) + 0.5) / count)


def _interpolatory(nodes: np.ndarray) -> np.ndarray:
    """Find weights that integrate T_0 ... T_(n - 1) exactly: the integral of T_k is 2 / (1 - k^2) for even k."""
    degree = np.arange(len(nodes))
    moments = np.where(degree % 2 == 0, 2.0 / (1.0 - np.where(degree == 1, 0, degree) ** 2.0), 0.0)
    return np.linalg.solve(np.polynomial.chebyshev.chebvander(nodes, len(nodes) - 1).T, moments)


RULES: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "gauss-legendre": _gauss_legendre,
    "clenshaw-curtis": _clenshaw_curtis,
    "fejer": _fejer,
    "gauss-chebyshev": _gauss_chebyshev,
}
