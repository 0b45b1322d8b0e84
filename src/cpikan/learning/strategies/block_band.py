"""Least squares whose rows touch few neighbouring blocks of unknowns, eliminated block by block with QR factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LOOSE = 1e-15  # a pivot, of the largest, that rounding makes


@dataclass(frozen=True)
class BlockRows:
    """Rows J_a c_a + J_b c_b + ... = -r for N groups of blocks, which ``blocks`` (N, M) names; ``jacobian`` is (N, M, rows, K),
    ``residual`` (N, rows).
    """

    blocks: Tensor
    jacobian: Tensor
    residual: Tensor


def solve_band(sets: Sequence[BlockRows], order: Tensor) -> Tensor:
    """Minimise |J c + r|^2 over c (E, K); ``order`` (E,) is the place of every block in the elimination.

    Householder QR of one place after the other: the rows that begin there with what earlier places left, their first K rows
    of R kept, the rest handed on; then back substitution. Work grows with the square of how far apart blocks lie that
    share rows.
    """
    blocks, width = len(order), sets[0].jacobian.shape[-1]
    dtype = sets[0].residual.dtype
    places = [order[one.blocks] for one in sets if len(one.blocks)]
    reach = max((int((at.amax(dim=1) - at.amin(dim=1)).max()) for at in places), default=0)
    waiting: list[list[Tensor]] = [[] for _ in range(blocks)]
    for one in sets:
        _spread(one, order, waiting, (reach + 1) * width)
    kept, carry = [], torch.zeros(0, (reach + 1) * width + 1, dtype=dtype)
    for place in range(blocks):
        triangle = torch.linalg.qr(torch.cat([carry, *waiting[place]]), mode="r")[1]
        waiting[place] = []
        kept.append(triangle[:width])
        rest = triangle[width:]
        carry = torch.cat([rest[:, width:-1], rest.new_zeros(len(rest), width), rest[:, -1:]], dim=1)
    solved = torch.zeros(blocks + reach, width, dtype=dtype)
    for place in reversed(range(blocks)):
        rows = kept[place]
        right = -rows[:, -1] - rows[:, width:-1] @ solved[place + 1 : place + 1 + reach].flatten()
        solved[place] = torch.linalg.solve_triangular(firm(rows[:, :width]), right[:, None], upper=True).squeeze(1)
    return solved[order]


def firm(triangle: Tensor) -> Tensor:
    """Give unknowns that no row determines an infinite pivot: they stay where they are."""
    size = triangle.diagonal().abs()
    loose = size <= _LOOSE * size.max()
    return triangle + torch.diag(torch.where(loose, torch.inf, 0.0)) if bool(loose.any()) else triangle


def natural(blocks: int) -> Tensor:
    """Order the blocks of a chain, each after its neighbour."""
    return torch.arange(blocks)


def folded(blocks: int) -> Tensor:
    """Order a ring's blocks from both ends alternately: neighbours and the ends are at most two places apart."""
    block = torch.arange(blocks)
    return torch.where(2 * block < blocks, 2 * block, 2 * (blocks - 1 - block) + 1)


def _spread(one: BlockRows, order: Tensor, waiting: list[list[Tensor]], columns: int) -> None:
    """Put rows where their first block is eliminated, columns relative to it."""
    count, parts, rows, width = one.jacobian.shape
    for n in range(count):
        ends = order[one.blocks[n]].tolist()
        base = min(ends)
        out = one.residual.new_zeros(rows, columns + 1)
        for part, place in zip(range(parts), ends, strict=True):
            out[:, (place - base) * width : (place - base + 1) * width] += one.jacobian[n, part]
        out[:, -1] = one.residual[n]
        waiting[base].append(out)
