"""Fourier neural operators whose kernels are Tucker-factorised: fewer parameters, the same layers.

J. Kossaifi et al., "Multi-grid tensorized Fourier neural operator for high-resolution PDEs", TMLR 2024.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.images.models.fno import FNO, SpectralConv, as_complex


def tucker_ranks(shape: tuple[int, ...], rank: float) -> tuple[int, ...]:
    """Choose the ranks of a core that holds about the share ``rank`` of the numbers of a kernel, alike along all axes.

    >>> tucker_ranks((24, 24, 16, 8), 1.0)
    (24, 24, 16, 8)
    >>> tucker_ranks((24, 24, 16, 8), 1 / 16)
    (12, 12, 8, 4)
    """
    return tuple(max(1, round(size * rank ** (1 / len(shape)))) for size in shape)


class TuckerConv(SpectralConv):
    """SpectralConv with R[i,o,x,y] = sum core[a,b,c,d] U[i,a] V[o,b] X[x,c] Y[y,d], all complex; R itself is never built.

    ``rank`` in (0, 1] is the share of the dense kernel's numbers that the core has; at 1 any dense kernel is reached.
    """

    def __init__(self, width_in: int, width_out: int, modes: int, rank: float) -> None:
        if not 0 < rank <= 1:
            raise InputError(f"rank {rank!r} of a Tucker kernel: give a share above 0 and up to 1, such as 0.1")
        self.shape = (width_in, width_out, 2 * modes, modes)
        self.ranks = tucker_ranks(self.shape, rank)
        super().__init__(width_in, width_out, modes)

    def _make_weights(self, spread: float) -> None:
        # a product of five factors over prod(ranks) terms; complex numbers of this variance, half of it in either part
        each = (math.sqrt(2) * spread / math.sqrt(math.prod(self.ranks))) ** (1 / 5) / math.sqrt(2)
        first, second, *rest = self.ranks
        self.core = nn.Parameter(each * torch.randn(first, second, 2 * math.prod(rest)))
        self.factors = nn.ParameterList(
            each * torch.randn(size, 2 * rank) for size, rank in zip(self.shape, self.ranks, strict=True)
        )

    def _parts(self) -> tuple[Tensor, list[Tensor]]:
        factors = [as_complex(factor, (rank,)) for factor, rank in zip(self.factors, self.ranks, strict=True)]
        return as_complex(self.core, self.ranks[2:]), factors

    def dense(self) -> Tensor:
        """Build the kernel (in, out, 2 modes, modes), complex: for inspection; `mix` does without."""
        core, factors = self._parts()
        return torch.einsum("abcd,ia,ob,xc,yd->ioxy", core, *factors)

    def mix(self, spectrum: Tensor) -> Tensor:
        core, (inner, outer, rows, columns) = self._parts()
        # the channels are reduced before and widened after the modes are mixed, by a kernel of ranks instead of widths
        small = torch.einsum("abcy,xc->abxy", torch.einsum("abcd,yd->abcy", core, columns), rows)
        reduced = torch.einsum("nixy,ia->naxy", spectrum, inner)
        return torch.einsum("nbxy,ob->noxy", torch.einsum("naxy,abxy->nbxy", reduced, small), outer)


class TFNO(FNO):
    """FNO with Tucker kernels; ``rank`` is the share of a dense kernel's numbers that a core has."""

    kind = "tfno"

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        width: int = 24,
        modes: int = 12,
        depth: int = 4,
        padding_px: int = 0,
        rank: float = 0.1,
    ) -> None:
        self.rank = float(rank)
        super().__init__(channels_in, channels_out, width, modes, depth, padding_px)

    def _spectral(self, width: int, modes: int) -> TuckerConv:
        return TuckerConv(width, width, modes, self.rank)
