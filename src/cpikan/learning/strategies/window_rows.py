"""WindowRows: residuals where overlapping windows make the solution of the series of several boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.cover import products
from cpikan.fields.decomposed import windowed
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.fields.protocol import Jet, Second
from cpikan.learning.strategies.row_set import Place, Residual, RowSet, features_on
from cpikan.partition import Partition
from cpikan.partition.windows import ramp


class WindowRows(RowSet):
    """Rows of M boxes at every point, places (N, B, d) with boxes (N, M): the features of each are taken times its window."""

    def __init__(
        self,
        partitions: Sequence[Partition[float]],
        series: ProductChebyshev,
        unit: Tensor,
        second: Second,
        function: Residual,
        *places: Place,
    ) -> None:
        self._partitions = partitions
        super().__init__(series, unit, second, function, *places)

    def _basis(self, second: Second, points: Tensor, index: Tensor) -> Jet:
        parts = []
        with torch.no_grad():
            for boxes in index.reshape(len(index), -1).unbind(dim=1):
                features = features_on(self._series, boxes, points, second)
                parts.append(windowed(*self._windows(points, boxes), features, second))
        return Jet(*(torch.cat(part, dim=2) for part in zip(*parts, strict=True)))

    def _windows(self, points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the windows of boxes (N,) at points (N, B, d): value (N, B), gradient, and second derivatives."""
        first, found = 0, [torch.zeros(*points.shape[:2], *(points.shape[2],) * order).double() for order in range(3)]
        for partition in self._partitions:
            mine = torch.nonzero((boxes >= first) & (boxes < first + len(partition))).squeeze(1)
            for whole, part in zip(found, _profiles(partition, points[mine], boxes[mine] - first), strict=True):
                whole[mine] = torch.from_numpy(part)
            first += len(partition)
        return found[0], found[1], found[2]


def _profiles(partition: Partition[float], points: Tensor, boxes: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate windows of one level: the difference of two ramps on every axis, and their products."""
    positions = np.unravel_index(boxes.numpy(), partition.counts)
    x = points.numpy()
    parts = []
    for number, axis in enumerate(partition.axes):
        starts = np.array([-np.inf, *axis.ramps, np.inf])
        width = axis.ramp or 1.0  # of one box alone, whose window is one
        with np.errstate(invalid="ignore"):
            up, down = (ramp(x[..., number], starts[positions[number] + side][:, None], width) for side in (0, 1))
        parts.append([one - other for one, other in zip(up, down, strict=True)])
    return products(*(np.stack(one, axis=-1) for one in zip(*parts, strict=True)))
