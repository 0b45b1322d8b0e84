"""What the closed form knows of itself: standard uncertainties of value, slopes and curvature at the blocks."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cpikan.psi.refine.closed_form import ClosedForm, basis_derivative, joined
from cpikan.psi.refine.protocol import BLOCK_PX

_CHUNK = 32  # tiles at a time
# sums of derivatives: of which order by y and by x
QUANTITIES = {"value": ((0, 0),), "slope_y": ((1, 0),), "slope_x": ((0, 1),), "curvature": ((2, 0), (0, 2))}


@torch.no_grad()
def posterior_sigma(
    closed: ClosedForm, quantities: tuple[str, ...] = ("value",), *, outermost: bool = False
) -> np.ndarray:
    """Sigma of ``quantities`` at the centres of the blocks, (Q, Hb, Wb), in nm and nm per block (squared).

    Every block's is that of the tile that owns it: sqrt(f' (F' W F)^-1 f), f the features there, W the weights of the last
    fit, times the square root of the tile's reduced chi squared where that is above one. NaN where nothing was fitted.
    ``outermost`` takes the blocks on the rim of a tile at their outermost pixels, where derivatives are worst known.
    """
    cells = closed.tiles.height.shape[1:]
    found = np.full((len(closed.modes), len(quantities), *cells), math.nan)
    for modes in torch.unique(closed.modes[closed.modes > 0]).tolist():
        index = torch.nonzero(closed.modes == modes).flatten()
        bases = [[basis_derivative(n, modes, order) for order in range(3)] for n in cells]
        places = [
            [_on_the_rim(b, n, modes, k) for k, b in enumerate(basis)] for basis, n in zip(bases, cells, strict=True)
        ]
        places = places if outermost else bases
        for first in range(0, len(index), _CHUNK):
            some = index[first : first + _CHUNK]
            inverse = _inverse(bases, closed.weight[some])
            variance = torch.stack([_variance(places, inverse, QUANTITIES[name]) for name in quantities], dim=1)
            found[some.numpy()] = (variance * closed.chi2[some].clamp_min(1.0)[:, None, None, None]).sqrt().numpy()
    return joined(closed.tiles.partition, found)


def _on_the_rim(basis: Tensor, cells: int, modes: int, order: int) -> Tensor:
    """The basis with its first and last block replaced by their outermost pixels, those of an array of pixels."""
    pixels = basis_derivative(cells * BLOCK_PX, modes, order) * BLOCK_PX**order
    return torch.cat([pixels[:1], basis[1:-1], pixels[-1:]])


def _inverse(bases: list[list[Tensor]], weight: Tensor) -> Tensor:
    """(F' W F)^-1 of tiles with weights (n, h, w), as (n, y modes^2, x modes^2): pairs of y modes against pairs of x modes.

    Features are products of a polynomial in y and one in x, so sums over the blocks are sums over y and then over x.
    """
    m = bases[0][0].shape[1]
    pairs = _pairs(bases[0][0], bases[0][0]).mT @ weight @ _pairs(bases[1][0], bases[1][0])
    gram = pairs.reshape(-1, m, m, m, m).transpose(2, 3).reshape(-1, m * m, m * m)
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).rsqrt()
    system = gram * scale[:, :, None] * scale[:, None, :]
    factor = torch.linalg.cholesky_ex(system + 1e-10 * torch.eye(m * m, dtype=system.dtype))[0]
    inverse = torch.cholesky_inverse(factor) * scale[:, :, None] * scale[:, None, :]
    return inverse.reshape(-1, m, m, m, m).transpose(2, 3).reshape(-1, m * m, m * m)


def _variance(bases: list[list[Tensor]], inverse: Tensor, terms: tuple[tuple[int, int], ...]) -> Tensor:
    """f' (F' W F)^-1 f at the blocks (n, h, w) of a sum of derivatives f."""
    total = torch.zeros(())
    for one in terms:
        for other in terms:
            left, right = (_pairs(bases[k][one[k]], bases[k][other[k]]) for k in (0, 1))
            total = total + left @ inverse @ right.mT
    return total.clamp_min(0.0)


def _pairs(one: Tensor, other: Tensor) -> Tensor:
    """Products of every polynomial of one basis with every one of the other, (cells, m^2)."""
    return (one[:, :, None] * other[:, None, :]).flatten(1)
