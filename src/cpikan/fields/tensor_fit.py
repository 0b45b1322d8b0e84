"""Least squares of tensor Chebyshev fields on grids: separable where every pixel counts alike, weighted where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.scaling import Domain
from cpikan.fields.tensor_chebyshev import TensorChebyshev, basis_1d

_CHUNK_BYTES = 64 * 2**20
_REFINEMENTS = 2


@dataclass(frozen=True)
class GridFit:
    """A fitted field, how many pixels took part and the weighted sum of squared residuals; () or (N,) each.

    Where no pixel took part the coefficients are NaN, so that nothing is filled silently.
    """

    field: TensorChebyshev
    pixels: Tensor
    chi2: Tensor


@torch.no_grad()
def fit_grid(
    values: Tensor,
    modes: Sequence[int],
    domain: Domain = None,
    *,
    weights: Tensor | None = None,
    ridge: float = 1e-12,
) -> GridFit:
    """Fit values (H, W), or (N, H, W), at the centres of H x W equal cells that fill the domain.

    Without ``weights`` the fit is two products with one-dimensional pseudo-inverses. With weights (inverse variances, of
    the shape of ``values``; 0 or a value that is NaN leaves a pixel out) the normal equations are assembled from moments
    sum w T_a(y) T_b(x), because T_i T_k = (T_(i+k) + T_|i-k|) / 2: two small products per tile instead of one of
    pixels x modes^2. They are solved in float64 by batched Cholesky, scaled to a unit diagonal with ``ridge`` added, and
    refined against the system without it; ``ridge`` says how firmly the modes that the pixels do not determine are held
    at zero. ``domain`` is by default ([0, 0], [H, W]): pixel k sits at k + 1/2. Raises InputError for wrong shapes and
    for more modes than rows or columns.
    """
    single = values.ndim == 2
    if values.ndim not in (2, 3) or (weights is not None and weights.shape != values.shape):
        given = None if weights is None else tuple(weights.shape)
        raise InputError(f"values of shape {tuple(values.shape)}, weights {given}: give (H, W) or (N, H, W) for both")
    height, width = values.shape[-2:]
    if modes[0] > height or modes[1] > width:
        raise InputError(f"modes {list(modes)} for {height} x {width} pixels: give at most one per row and column")
    box = domain if domain is not None else ([0.0, 0.0], [float(height), float(width)])
    field = TensorChebyshev(modes, box, networks=None if single else len(values)).to(values.device)
    tiles = values.unsqueeze(0) if single else values
    y, x = (_centres(n, values.device) for n in (height, width))
    bases = basis_1d(y, modes[0]), basis_1d(x, modes[1])
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    step = max(1, _CHUNK_BYTES // (8 * max((modes[0] * modes[1]) ** 2 * 4, height * width)))
    for first in range(0, len(tiles), step):
        part = tiles[first : first + step].double()
        if weights is None:
            parts.append(_separable(part, bases))
        else:
            w = (weights.unsqueeze(0) if single else weights)[first : first + step].double()
            parts.append(_weighted(part, w, (y, x), bases, ridge))
    found, pixels, chi2 = (torch.cat(store) for store in zip(*parts, strict=True))
    field.coefficients.copy_(found.reshape(field.coefficients.shape))
    shape = () if single else (len(values),)
    return GridFit(field, pixels.reshape(shape), chi2.reshape(shape))


def _centres(count: int, device: torch.device) -> Tensor:
    """Compute scaled coordinates of the centres of equal cells."""
    return (2 * torch.arange(count, dtype=torch.float64, device=device) + 1) / count - 1


def _separable(z: Tensor, bases: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    left, right = bases
    c = torch.linalg.pinv(left) @ z @ torch.linalg.pinv(right).mT
    rest = z - left @ c @ right.mT
    count = torch.full((len(z),), z.shape[-2] * z.shape[-1], device=z.device)
    return c, count, (rest * rest).sum(dim=(-2, -1))


def _weighted(
    z: Tensor, w: Tensor, places: tuple[Tensor, Tensor], bases: tuple[Tensor, Tensor], ridge: float
) -> tuple[Tensor, Tensor, Tensor]:
    left, right = bases
    used = (w > 0) & torch.isfinite(z) & torch.isfinite(w)
    z, w = torch.where(used, z, 0.0), torch.where(used, w, 0.0)
    m0, m1 = left.shape[-1], right.shape[-1]
    wide = basis_1d(places[0], 2 * m0 - 1), basis_1d(places[1], 2 * m1 - 1)
    gram = _gram(wide[0].mT @ w @ wide[1], m0, m1)
    c = _solve(gram, (left.mT @ (w * z) @ right).flatten(-2), ridge).unflatten(-1, (m0, m1))
    count = used.sum(dim=(-2, -1))
    c = torch.where((count > 0)[:, None, None], c, torch.nan)
    rest = z - left @ c @ right.mT
    return c, count, (w * rest * rest).sum(dim=(-2, -1))


def _gram(moments: Tensor, m0: int, m1: int) -> Tensor:
    """Compute the matrix sum w T_i T_j T_k T_l of the unknowns (i, j) and (k, l) from moments (N, 2 m0 - 1, 2 m1 - 1)."""
    rows, columns = (_sums_and_differences(m, moments.device) for m in (m0, m1))
    total = sum(moments[:, a][..., b] for a in rows for b in columns)
    assert isinstance(total, Tensor)
    return (total / 4).permute(0, 1, 3, 2, 4).reshape(len(moments), m0 * m1, m0 * m1)


def _sums_and_differences(modes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    k = torch.arange(modes, device=device)
    return k[:, None] + k, (k[:, None] - k).abs()


def _solve(gram: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solve by batched Cholesky with a unit diagonal; ridge grows a hundredfold where the factor fails."""
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(gram.dtype).tiny).rsqrt()
    scaled = gram * scale[:, :, None] * scale[:, None, :]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    added = torch.full((len(gram), 1, 1), ridge, dtype=gram.dtype, device=gram.device)
    for _ in range(4):
        factor, info = torch.linalg.cholesky_ex(scaled + added * eye)
        if not bool(info.any()):
            break
        added = torch.where(info[:, None, None] > 0, 100 * added, added)
    goal = (right * scale).unsqueeze(-1)
    c = torch.cholesky_solve(goal, factor)
    for _ in range(_REFINEMENTS):
        c = c + torch.cholesky_solve(goal - scaled @ c, factor)
    return c.squeeze(-1) * scale
