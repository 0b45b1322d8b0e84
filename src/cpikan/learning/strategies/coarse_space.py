"""CoarseSpace: few smooth functions over a grid of boxes, which carry what is far from local."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from cpikan.partition import Partition

_HERMITE = ((2, -3, 0, 1), (1, -1, -1, 1), (2, 3, 0, -1), (-1, -1, 1, 1))  # times 1 / 4, by rising powers on [-1, 1]


class CoarseSpace:
    """Products of cubic Hermite functions: of every corner of the boxes of a grid value and slope on each axis.

    They are continuous with their slopes and hold every cubic, so that they cost nothing where boxes meet. ``coefficients``
    (E, K outputs, L outputs) are those of the L = 4^d functions that live on a box in its Chebyshev series, ``modes`` per axis
    (cut off where there are fewer than four), outputs last and each by itself; ``index`` (E, L outputs) numbers them among all
    ``size`` functions.
    """

    def __init__(self, partition: Partition[float], modes: Sequence[int], outputs: int) -> None:
        counts, d = partition.counts, len(partition.counts)
        cores = np.array([box.core for box in partition])
        length = cores[..., 1] - cores[..., 0]
        corner = np.array(list(np.ndindex(*counts)))
        columns, numbers = [], []
        for kinds in itertools.product(range(4), repeat=d):
            end, slope = np.divmod(kinds, 2)
            scale = np.where(slope == 1, length / length.max(axis=0), 1.0).prod(axis=1)  # one slope on either side
            columns.append(
                scale[:, None] * _product([_chebyshev(kind, m) for kind, m in zip(kinds, modes, strict=True)])
            )
            place = np.ravel_multi_index((corner + end).T, tuple(n + 1 for n in counts))
            numbers.append(place * 2**d + int(slope @ 2 ** np.arange(d)))
        eye = np.eye(outputs)
        local, index = np.stack(columns, axis=-1), np.stack(numbers, axis=-1)
        self.coefficients = np.einsum("ekl,op->ekolp", local, eye).reshape(len(cores), -1, local.shape[-1] * outputs)
        self.index = (index[..., None] * outputs + np.arange(outputs)).reshape(len(cores), -1)
        self.size = int(np.prod(np.array(counts) + 1)) * 2**d * outputs


def _chebyshev(kind: int, modes: int) -> np.ndarray:
    found = np.zeros(max(modes, 4))
    found[:4] = np.polynomial.chebyshev.poly2cheb(np.array(_HERMITE[kind]) / 4)
    return found[:modes]


def _product(parts: Sequence[np.ndarray]) -> np.ndarray:
    found = parts[0]
    for part in parts[1:]:
        found = np.multiply.outer(found, part).reshape(-1)
    return found
