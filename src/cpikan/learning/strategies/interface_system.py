"""InterfaceSystem: what is left of the least squares of many boxes when each is eliminated by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from cpikan.learning.schwarz import Schwarz
from cpikan.learning.strategies.block_band import BlockRows
from cpikan.learning.strategies.coarse_space import CoarseSpace
from cpikan.learning.strategies.dissection import condensed, put_back


class InterfaceSystem:
    """The least squares T g = -t of the unknowns g of all faces, of rows of at most two blocks at ``places`` (E, d).

    Every row of a face has an unknown (see ``solve_dissected``). A block leaves a triangle over those of its faces, ``parts``
    (index arrays, one per block that has faces); ``rows`` T (m, n) holds the triangles, ``right`` (m,) is t.
    """

    def __init__(self, sets: Sequence[BlockRows], places: Tensor, damping: float) -> None:
        elements, self._sizes, self._kept = condensed(sets, places, damping)
        self._blocks = len(places)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes[self._blocks :])]).astype(int)
        found = [np.concatenate([self._range(node) for node in one.nodes]) for one in elements if one.nodes]
        self.parts = found
        tables = [one.rows.numpy() for one in elements if one.nodes]
        self.rows = _assembled([one[:, :-1] for one in tables], found, int(self._starts[-1]))
        self.right = np.concatenate([one[:, -1] for one in tables]) if tables else np.zeros(0)
        self._sets = sets

    def prolongation(self, space: CoarseSpace) -> csr_array:
        """Write the functions of a coarse space as unknowns of the faces, (n, size): the mean of either side."""
        tables, columns = [], []
        for one in self._sets:
            for n, touched in enumerate(one.blocks.tolist()):
                if len(touched) == 2 and touched[0] != touched[1]:
                    sides = [one.jacobian[n, side].numpy() @ space.coefficients[touched[side]] for side in (0, 1)]
                    tables.append(np.concatenate([0.5 * sides[0], -0.5 * sides[1]], axis=1))
                    columns.append(np.concatenate([space.index[block] for block in touched]))
        found = _assembled(tables, columns, space.size)
        used = np.flatnonzero(abs(found).sum(axis=0) > 0)
        return csr_array(found.tocsc()[:, used])

    def filled(self, g: np.ndarray) -> Tensor:
        """Put the unknowns of the faces back into the blocks, (E, K)."""
        found = [torch.zeros(size, dtype=torch.float64) for size in self._sizes]
        for node in range(self._blocks, len(self._sizes)):
            found[node] = torch.from_numpy(g[self._range(node)])
        put_back(self._kept, self._sizes, found)
        return torch.stack(found[: self._blocks])

    def _range(self, node: int) -> np.ndarray:
        return np.arange(self._starts[node - self._blocks], self._starts[node - self._blocks + 1])


@dataclass
class SchwarzSolve:
    """Minimise |J c + r|^2 of rows of at most two blocks at ``places`` (E, d) by a Schwarz method with the coarse ``space``.

    Counts the corrections of all solves as ``iterations``.
    """

    places: Tensor
    damping: float
    space: CoarseSpace
    variant: str
    iterations: int = 0

    def __call__(self, sets: Sequence[BlockRows]) -> Tensor:
        """Find c (E, K)."""
        system = InterfaceSystem(sets, self.places, self.damping)
        if not system.parts:
            return system.filled(np.zeros(0))
        found = Schwarz(system.rows, system.right, system.parts, self.variant, system.prolongation(self.space)).solve()
        self.iterations += found.iterations
        return system.filled(found.x)


def _assembled(tables: Sequence[np.ndarray], columns: Sequence[np.ndarray], width: int) -> csr_array:
    """Put tables below each other, in these columns of a sparse matrix; entries of a column named twice add up."""
    heights = [len(one) for one in tables]
    firsts = np.cumsum([0, *heights])
    index = [np.broadcast_to(one, table.shape).ravel() for one, table in zip(columns, tables, strict=True)]
    rows = [np.repeat(np.arange(a, a + len(t)), t.shape[1]) for a, t in zip(firsts, tables, strict=False)]
    values = [table.ravel() for table in tables]
    parts = [np.concatenate(one) if one else np.zeros(0) for one in (values, rows, index)]
    return csr_array((parts[0], (parts[1].astype(int), parts[2].astype(int))), shape=(int(firsts[-1]), width))
