"""The damped linear systems of a least-squares step, for batches of problems."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor


class Equations(Protocol):
    """Least squares linearised at the parameters of n problems: cost (n,), gradient J'r and diagonal of J'J (n, P)."""

    @property
    def cost(self) -> Tensor: ...

    @property
    def gradient(self) -> Tensor: ...

    @property
    def diagonal(self) -> Tensor: ...

    def step(self, damping: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """Solve (J'J + damping diag(metric)) step = -J'r for steps (n, P), and tell which have a factor (n,)."""
        ...

    def take(self, index: Tensor) -> Self: ...

    def replace(self, index: Tensor, new: Self) -> Self: ...


class ProblemParts:
    """Picking and putting back problems, for dataclasses of tensors that all begin with the problems."""

    def take(self, index: Tensor) -> Any:
        """Select the problems ``index``."""
        return type(self)(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))  # type: ignore[arg-type]

    def replace(self, index: Tensor, new: Any) -> Any:
        """Copy the parts with the problems ``index`` taken from ``new``."""
        names = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        return type(self)(*(getattr(self, n).index_copy(0, index, getattr(new, n)) for n in names))


@dataclass(frozen=True)
class NormalEquations(ProblemParts):
    """With J'J (n, P, P): what sums over chunks of residuals, however many there are."""

    cost: Tensor
    gradient: Tensor
    matrix: Tensor

    @property
    def diagonal(self) -> Tensor:
        """Return diag(J'J), (n, P)."""
        return self.matrix.diagonal(dim1=-2, dim2=-1)

    def step(self, damping: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """Solve (S J'J S + damping) S^-1 step = -S J'r with S = metric^-1/2, by batched Cholesky."""
        scale = metric.rsqrt()
        system = self.matrix * scale[:, :, None] * scale[:, None, :]
        factor, info = torch.linalg.cholesky_ex(_add_diagonal(system, damping))
        solved = torch.cholesky_solve((self.gradient * scale)[..., None], factor).squeeze(-1)
        return -scale * solved, info == 0

    def __add__(self, other: NormalEquations) -> NormalEquations:
        return NormalEquations(self.cost + other.cost, self.gradient + other.gradient, self.matrix + other.matrix)


def _add_diagonal(system: Tensor, damping: Tensor) -> Tensor:
    eye = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
    return system + damping[:, None, None] * eye
