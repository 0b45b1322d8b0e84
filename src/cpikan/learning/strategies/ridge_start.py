"""Ridge start: hidden nodes that are tanh of plane waves' phases, in directions that fill the sphere evenly.

Powers of d + ... directions in general position span all polynomials: with D + 1 directions in the plane, ridge functions
of degree D are all polynomials of total degree D, and their coefficients are linear. A drawn hidden layer leaves that to
chance; this one does not. Directions can be stretched by a metric, for solutions that vary much more along some.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from cpikan.errors import InputError
from cpikan.fields.scaled_cpikan import ScaledCPIKAN

_REACH = 0.8  # tanh of the ends: nearly linear, so that the features are nearly polynomials, and not yet degenerate
_FLOOR = 0.02  # the least stretch of an axis relative to the largest


def ridge_start(field: ScaledCPIKAN, seed: int = 0, metric: np.ndarray | None = None) -> None:
    """Set the first layer to tanh-free ridges over evenly spread directions; the output starts at zero.

    ``metric`` (d, d) is the mean outer product of gradients in scaled coordinates. In one dimension nodes differ in
    steepness. Raises InputError for a field that has not exactly one hidden layer.
    """
    layers = field.chebyshev_layers()
    if len(layers) != 2:
        raise InputError(f"ridge start for {len(layers)} layers: give one hidden layer, as widths [2, 24, 1]")
    first, count = layers[0], layers[0].outputs
    random = np.random.default_rng([seed, 31])
    spread = directions(count, field.dimension, random, metric)
    reach = _REACH * (np.linspace(0.75, 1.25, count) if field.dimension == 1 else np.ones(count))
    with torch.no_grad():
        first.weight.zero_()
        first.bias.zero_()
        first.weight[: field.dimension] = torch.from_numpy((spread * reach[:, None]).T.copy())
    field.set_output_coefficients(torch.zeros_like(field.output_coefficients()))


def directions(count: int, dimension: int, random: np.random.Generator, metric: np.ndarray | None = None) -> np.ndarray:
    """Make ``count`` directions (count, d), no two opposite, of unit sum of absolute values, turned at random."""
    if dimension == 1:
        return np.ones((count, 1))
    if dimension == 2:
        angle = (np.arange(count) + random.random()) / count * math.pi
        even = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    elif dimension == 3:  # Fibonacci's lattice on half a sphere
        step = np.arange(count) + 0.5
        height, turn = step / count, math.pi * (1 + 5**0.5) * step + 2 * math.pi * random.random()
        ring = np.sqrt(1 - height * height)
        even = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=-1)
    else:
        drawn = random.standard_normal((count, dimension))
        even = drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
    if metric is not None:
        even = even @ stretch(metric)
    return np.asarray(even / np.abs(even).sum(axis=-1, keepdims=True))


def stretch(metric: np.ndarray) -> np.ndarray:
    """Compute the square root of a metric, scaled to largest eigenvalue 1 and none below the floor."""
    values, vectors = np.linalg.eigh(metric)
    share = np.clip(np.sqrt(np.clip(values / max(values[-1], 1e-300), 0, None)), _FLOOR, None)
    return np.asarray((vectors * share) @ vectors.T)


def sharpened(metric: np.ndarray) -> np.ndarray:
    """Raise a metric to the power 3/2: what fewer directions than polynomials need, to lie nearer to the steep axes.

    n directions that all go to one axis span the polynomials of degree n - 1 along the other ones.
    """
    values, vectors = np.linalg.eigh(metric)
    largest = max(float(values[-1]), 1e-300)
    return np.asarray((vectors * (np.clip(values / largest, 0, None) ** 1.5 * largest)) @ vectors.T)


def gradient_metric(field: nn.Module, points: torch.Tensor) -> np.ndarray:
    """Average the outer product of gradients at points (B, d), in scaled coordinates, outputs of equal weight."""
    with torch.no_grad():
        part: Any = field
        gradient = part.jet(points, "none").gradient / part.scaling.slopes()
    size = gradient.square().mean(dim=(0, 2), keepdim=True).sqrt().clamp_min(1e-300)
    even = (gradient / size).flatten(0, 1)
    return np.asarray((even.mT @ even / len(even)).numpy())
