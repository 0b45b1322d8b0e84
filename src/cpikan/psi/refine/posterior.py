"""What the closed form knows of itself: standard uncertainties of value, slopes and curvature at the blocks."""

from __future__ import annotations

import math
from collections.abc import Callable

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
    """Compute the sigma of ``quantities`` at the centres of blocks, (Q, Hb, Wb), in nm and nm per block (squared).

    Every block's is that of the tile that owns it: sqrt(f' (F' W F)^-1 f), f the features there, W the weights of the last
    fit, times the square root of the tile's reduced chi squared where that is above one. NaN where nothing was fitted.
    ``outermost`` takes the blocks on the rim of a tile at their outermost pixels, where derivatives are worst known.
    """

    def variances(bases: list[list[Tensor]], inverse: Tensor, chi2: Tensor) -> Tensor:
        places = [_on_the_rim(basis) for basis in bases] if outermost else bases
        found = torch.stack([_variance(places, inverse, QUANTITIES[name]) for name in quantities], dim=1)
        return found * chi2.clamp_min(1.0)[:, None, None, None]

    return np.sqrt(_of_tiles(closed, len(quantities), variances))


@torch.no_grad()
def fitted_products(closed: ClosedForm) -> np.ndarray:
    """Compute the covariance of the fit at each block and at the next one along y, and along x, (2, Hb, Wb) in nm^2.

    What a fit follows of the noise is missing in its residuals: those of neighbours have minus this as their mean product
    (the residuals are (1 - H) n, and H is a projection for the weights of the fit). NaN where nothing was fitted.
    """

    def products(bases: list[list[Tensor]], inverse: Tensor, chi2: Tensor) -> Tensor:
        values = [basis[0] for basis in bases]
        here = [_pairs(v, v) for v in values]
        beside = [_pairs(v, torch.cat([v[1:], v[-1:]])) for v in values]
        found = [beside[0] @ inverse @ here[1].mT, here[0] @ inverse @ beside[1].mT]
        return torch.stack(found, dim=1) * chi2[:, None, None, None]

    return _of_tiles(closed, 2, products)


def _of_tiles(closed: ClosedForm, count: int, work: Callable[..., Tensor]) -> np.ndarray:
    """Compute ``work(bases, inverse, chi2)`` of the tiles, those with as many modes together: (count, Hb, Wb)."""
    cells = closed.tiles.height.shape[1:]
    found = np.full((len(closed.modes), count, *cells), math.nan)
    for modes in torch.unique(closed.modes[closed.modes > 0]).tolist():
        bases = [[basis_derivative(n, modes, order) for order in range(3)] for n in cells]
        for some in torch.nonzero(closed.modes == modes).flatten().split(_CHUNK):
            found[some.numpy()] = work(bases, _inverse(bases, closed.weight[some]), closed.chi2[some]).numpy()
    return joined(closed.tiles.partition, found)


def _on_the_rim(basis: list[Tensor]) -> list[Tensor]:
    """Replace the first and last block of the bases by their outermost pixels, those of an array of pixels."""
    found = []
    for order, part in enumerate(basis):
        pixels = basis_derivative(len(part) * BLOCK_PX, part.shape[1], order) * BLOCK_PX**order
        found.append(torch.cat([pixels[:1], part[1:-1], pixels[-1:]]))
    return found


def _inverse(bases: list[list[Tensor]], weight: Tensor) -> Tensor:
    """Compute (F' W F)^-1 of tiles with weights (n, h, w), as (n, y modes^2, x modes^2): y pairs against x pairs.

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
    """Compute f' (F' W F)^-1 f at the blocks (n, h, w) of a sum of derivatives f."""
    total = torch.zeros(())
    for one in terms:
        for other in terms:
            left, right = (_pairs(bases[k][one[k]], bases[k][other[k]]) for k in (0, 1))
            total = total + left @ inverse @ right.mT
    return total.clamp_min(0.0)


def _pairs(one: Tensor, other: Tensor) -> Tensor:
    """Multiply every polynomial of one basis with every one of the other, (cells, m^2)."""
    return (one[:, :, None] * other[:, None, :]).flatten(1)
