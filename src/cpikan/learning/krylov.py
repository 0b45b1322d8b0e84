"""Conjugate gradients for symmetric positive systems that are known by their products, with a randomised preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Nystroem:
    """The approximation U diag(values) U' of a symmetric positive A (n, n) from its products with few random vectors.

    Source: Frangella, Tropp and Udell, Randomized Nystroem preconditioning, SIAM J. Matrix Anal. Appl. 44, 718 (2023).
    """

    vectors: Tensor
    values: Tensor

    @classmethod
    def of(cls, product: Apply, size: int, rank: int, like: Tensor) -> Self | None:
        """Draw ``rank`` vectors, the same for the same sizes; ``product`` takes (n,). None where rounding is in the way."""
        generator = torch.Generator().manual_seed(size)
        drawn = torch.randn(size, min(rank, size), generator=generator, dtype=like.dtype).to(like.device)
        sketch = torch.linalg.qr(drawn)[0]
        image = torch.stack([product(column) for column in sketch.mT.contiguous()], dim=1)
        shift = float(torch.finfo(like.dtype).eps * image.norm())
        image = image + shift * sketch
        core = sketch.mT @ image
        factor, info = torch.linalg.cholesky_ex(0.5 * (core + core.mT))
        if int(info) or not bool(torch.isfinite(factor).all()):
            return None
        root = torch.linalg.solve_triangular(factor, image.mT, upper=False).mT
        vectors, sizes, _ = torch.linalg.svd(root, full_matrices=False)
        return cls(vectors, (sizes.square() - shift).clamp_min(0))

    def preconditioner(self, damping: float) -> Apply:
        """Make an approximate inverse of (A + damping) / (last value + damping)."""
        share = (self.values[-1] + damping) / (self.values + damping) - 1
        return lambda vector: vector + self.vectors @ (share * (self.vectors.mT @ vector))


@dataclass(frozen=True)
class Stopping:
    """When conjugate gradients have done enough.

    At a residual of ``tolerance`` of the right side, after ``most`` products, or where the model's fall of the last tenth of
    the products (ten at least) is less than ``progress`` of all per product (Martens, Deep learning via Hessian-free
    optimization, ICML 2010).
    """

    tolerance: float = 1e-10
    most: int = 500
    progress: float = 0.0


def conjugate_gradients(
    product: Apply, right: Float[Tensor, " n"], stopping: Stopping, precondition: Apply = lambda vector: vector
) -> tuple[Float[Tensor, " n"], int]:
    """Solve A x = b (n,) from x = 0; gives x and the number of products.

    Every iterate lowers x'Ax / 2 - b'x, so that one that is cut short is still a step down.
    """
    found, left = torch.zeros_like(right), right.clone()
    steered = precondition(left)
    along, size, goal = steered, float(left @ steered), stopping.tolerance * float(right.norm())
    falls: list[float] = [0.0]
    for taken in range(stopping.most):
        if float(left.norm()) <= goal or not size > 0:
            return found, taken
        image = product(along)
        bend = float(along @ image)
        if not bend > 0:
            return found, taken
        length = size / bend
        found, left = found + length * along, left - length * image
        falls.append(falls[-1] + 0.5 * length * size)
        back = max(10, taken // 10)
        if stopping.progress and taken >= back and falls[-1] - falls[-1 - back] < back * stopping.progress * falls[-1]:
            return found, taken + 1
        steered = precondition(left)
        size, before = float(left @ steered), size
        along = steered + (size / before) * along
    return found, stopping.most
