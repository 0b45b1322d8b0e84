"""What the closed form knows of itself: standard uncertainties of value, slopes and curvature at the blocks."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cpikan.psi.refine.closed_form import ClosedForm, basis_derivative, joined

_CHUNK = 32  # tiles at a time
QUANTITIES = ("value", "slope_y", "slope_x", "curvature")


@torch.no_grad()
def posterior_sigma(closed: ClosedForm, quantities: tuple[str, ...] = ("value",)) -> np.ndarray:
    """Sigma of ``quantities`` at the centres of the blocks, (Q, Hb, Wb), in nm and nm per block (squared).

    Every block's is that of the tile that owns it: sqrt(f' (F' W F)^-1 f), f the features there, W the weights of the last
    fit, times the square root of the tile's reduced chi squared where that is above one. NaN where nothing was fitted.
    """
    cells = closed.tiles.height.shape[1:]
    found = np.full((len(closed.modes), len(quantities), *cells), math.nan)
    for modes in torch.unique(closed.modes[closed.modes > 0]).tolist():
        index = torch.nonzero(closed.modes == modes).flatten()
        features = _features(cells, modes, quantities)
        for first in range(0, len(index), _CHUNK):
            some = index[first : first + _CHUNK]
            sigma = _of_tiles(features, closed.weight[some].flatten(1), closed.chi2[some])
            found[some.numpy()] = sigma.unflatten(-1, cells).numpy()
    return joined(closed.tiles.partition, found)


def _of_tiles(features: Tensor, weight: Tensor, chi2: Tensor) -> Tensor:
    """(n, Q, B) from features (1 + Q, B, F), the first those of the fit, and weights (n, B)."""
    plain = features[0]
    gram = plain.mT @ (weight[..., None] * plain)
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).rsqrt()
    system = gram * scale[:, :, None] * scale[:, None, :]
    factor = torch.linalg.cholesky_ex(system + 1e-10 * torch.eye(system.shape[-1], dtype=system.dtype))[0]
    result = []
    for asked in features[1:]:
        solved = torch.linalg.solve_triangular(factor, (asked * scale[:, None, :]).mT, upper=False)
        result.append((solved * solved).sum(dim=-2))
    return (torch.stack(result, dim=1) * chi2.clamp_min(1.0)[:, None, None]).sqrt()


def _features(shape: torch.Size, modes: int, quantities: tuple[str, ...]) -> Tensor:
    """Products of polynomials or their derivatives (nm per block) at the blocks of a tile, (1 + Q, B, modes^2)."""

    def product(y: int, x: int) -> Tensor:
        left, right = (basis_derivative(n, modes, order) for n, order in zip(shape, (y, x), strict=True))
        return (left[:, None, :, None] * right[None, :, None, :]).flatten(0, 1).flatten(1)

    makers = {
        "value": lambda: product(0, 0),
        "slope_y": lambda: product(1, 0),
        "slope_x": lambda: product(0, 1),
        "curvature": lambda: product(2, 0) + product(0, 2),
    }
    return torch.stack([product(0, 0), *(makers[name]() for name in quantities)])
