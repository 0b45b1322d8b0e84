"""What Levenberg-Marquardt asks of least-squares problems in batches."""

from __future__ import annotations

from typing import Protocol, Self

from torch import Tensor

from cpikan.learning.normal_equations import Equations


class LeastSquares(Protocol):
    """n independent problems: the sum of a loss over residuals r(parameters), parameters (n, P)."""

    def cost(self, parameters: Tensor) -> Tensor:
        """Compute the loss of each problem, (n,)."""
        ...

    def linearise(self, parameters: Tensor) -> Equations:
        """Set up the linear system of each problem at these parameters."""
        ...

    def take(self, index: Tensor) -> Self:
        """Select the problems ``index``, in that order."""
        ...
