"""Connected components of a mask that arrives in bands: labels for the whole image without holding it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class ComponentScan:
    """First sweep over the bands of a mask: labels each band on its own and remembers which labels touch.

    Pixels are connected through edges, not corners, as in unwrapping. Bands must come from top to bottom without gaps.
    After ``finish``, ``rows`` relabels the same bands, in any order, with labels 1..count of the whole image, 0
    outside.
    """

    def __init__(self) -> None:
        self._first: dict[int, int] = {}  # row where a band starts -> label before its first one
        self._total = 0
        self._last_row: NDArray[np.int64] | None = None
        self._pairs = [np.zeros((2, 0), np.int64)]  # labels of the whole that touch, one above the other
        self._final: NDArray[np.int64] = np.zeros(1, np.int64)
        self.count = 0

    def add(self, start: int, mask: NDArray[np.bool_]) -> None:
        """Take the band of rows that starts at ``start``."""
        labels, count = _label(mask)
        self._first[start] = self._total
        labels[labels > 0] += self._total
        self._total += count
        if self._last_row is not None:
            joined = (self._last_row > 0) & (labels[0] > 0)
            pairs = np.stack([self._last_row[joined], labels[0][joined]])
            self._pairs.append(np.unique(pairs, axis=1))
        self._last_row = labels[-1].copy()

    def finish(self) -> None:
        """Join the labels that touch; ``count`` is the number of components afterwards."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.concatenate(self._pairs, axis=1)
        size = self._total + 1
        links = coo_array((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(size, size))
        parts, owner = connected_components(links, directed=False)
        # label 0, the outside, links to nothing and is alone in its part
        renumber = np.zeros(parts, np.int64)
        order = np.unique(owner[1:])
        renumber[order] = np.arange(1, order.size + 1)
        self._final = renumber[owner]
        self._final[0] = 0
        self.count = int(order.size)

    def rows(self, start: int, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Label the band that starts at ``start``; ``mask`` is the one given to ``add`` for it."""
        labels, _ = _label(mask)
        labels[labels > 0] += self._first[start]
        return self._final[labels]


def _label(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    return labels.astype(np.int64), int(count)
