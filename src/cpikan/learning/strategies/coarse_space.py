"""CoarseSpace: few smooth functions over a grid of boxes, which carry what is far from local."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from cpikan.partition import Partition

_DERIVATIVES = 3  # at a corner along an axis, the value counted: quintic functions


class CoarseSpace:
    """Products of quintic Hermite functions: at every corner of the boxes of a grid value, slope and curvature on each axis.

    They are continuous with their first and second derivatives and hold every quintic, so that they cost nothing where boxes
    meet; where an axis has fewer than six ``modes`` they are cubic, without curvatures. ``coefficients`` (E, K outputs,
    L outputs) are those of the L = 6^d or 4^d functions that live on a box in its Chebyshev series, ``modes`` per axis (cut
    off where there are fewer than four), outputs last and each by itself; ``index`` (E, L outputs) numbers them among all
    ``size`` functions. Slopes are counted in half of the longest box on their axis.
    """

    def __init__(self, partition: Partition[float], modes: Sequence[int], outputs: int) -> None:
        counts, d = partition.counts, len(partition.counts)
        known = _DERIVATIVES if min(modes) >= 2 * _DERIVATIVES else 2
        functions = _hermite(known)
        cores = np.array([box.core for box in partition])
        length = cores[..., 1] - cores[..., 0]
        corner = np.array(list(np.ndindex(*counts)))
        columns, numbers = [], []
        for kinds in itertools.product(range(2 * known), repeat=d):
            end, order = np.divmod(kinds, known)
            scale = (length / length.max(axis=0)) ** order  # the same slope on either side of a corner
            series = _product([_cut(functions[kind], m) for kind, m in zip(kinds, modes, strict=True)])
            columns.append(scale.prod(axis=1)[:, None] * series)
            place = np.ravel_multi_index((corner + end).T, tuple(n + 1 for n in counts))
            numbers.append(place * known**d + int(order @ known ** np.arange(d)))
        eye = np.eye(outputs)
        local, index = np.stack(columns, axis=-1), np.stack(numbers, axis=-1)
        self.coefficients = np.einsum("ekl,op->ekolp", local, eye).reshape(len(cores), -1, local.shape[-1] * outputs)
        self.index = (index[..., None] * outputs + np.arange(outputs)).reshape(len(cores), -1)
        self.size = int(np.prod(np.array(counts) + 1)) * known**d * outputs


def _hermite(known: int) -> np.ndarray:
    """Find the Chebyshev series on [-1, 1] that have one of ``known`` derivatives at one end 1 and the others 0, one a row.

    The first are those of the lower end, by rising derivative.
    """
    count = 2 * known
    derived = [np.polynomial.chebyshev.chebder(np.eye(count), m=order) for order in range(known)]
    rows = [np.polynomial.chebyshev.chebval(end, series) for end in (-1.0, 1.0) for series in derived]
    return np.asarray(np.linalg.inv(np.array(rows)).T)


def _cut(series: np.ndarray, modes: int) -> np.ndarray:
    return np.pad(series, (0, max(0, modes - len(series))))[:modes]


def _product(parts: Sequence[np.ndarray]) -> np.ndarray:
    found = parts[0]
    for part in parts[1:]:
        found = np.multiply.outer(found, part).reshape(-1)
    return found
