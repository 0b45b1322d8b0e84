"""SlabSystem: the least-squares problem of the coefficients of series on many boxes, as Gauss-Newton sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.learning.share import WHOLE, Share
from cpikan.learning.strategies.block_band import BlockRows
from cpikan.learning.strategies.row_set import RowSet


class SlabSystem:
    """The least-squares problem of the coefficients of ``series``, whose steps ``solve(rows) -> (E, K)`` finds.

    What was linearised for a trial serves the next step. Of several processes each has the rows of its ``share``.
    """

    def __init__(
        self,
        series: ProductChebyshev,
        unit: Tensor,
        sets: Sequence[RowSet],
        solve: Callable[[list[BlockRows]], Tensor],
        share: Share = WHOLE,
    ) -> None:
        self._series, self._unit, self._sets, self._solve, self._share = series, unit, sets, solve, share
        self._rows: list[BlockRows] = []

    def position(self) -> Tensor:
        return self._series.coefficients.detach().clone()

    def put(self, position: Tensor) -> None:
        self._series.set_output_coefficients(position)
        self._rows = []

    def cost(self) -> float:
        """Sum the squares of all residuals; infinite where the sum is not finite."""
        self._rows = self._rows or [one.rows() for one in self._sets]
        cost = self._share.squares((one.blocks, one.residual) for one in self._rows)
        return cost if math.isfinite(cost) else math.inf

    def step(self) -> tuple[float, Tensor]:
        cost = self.cost()
        found = self._solve(self._rows) if math.isfinite(cost) else torch.full((1,), math.nan)
        shape = self._series.coefficients.shape
        return cost, found.reshape(shape) * self._unit if found.numel() > 1 else found

    def expected(self, step: Tensor) -> float:
        """Compute the sum of squares that the linear model promises after a step."""
        flat = (step / self._unit).flatten(1)
        changes = [torch.einsum("nmrk,nmk->nr", one.jacobian, flat[one.blocks]) for one in self._rows]
        pairs = zip(self._rows, changes, strict=True)
        return self._share.squares((one.blocks, one.residual + change) for one, change in pairs)
