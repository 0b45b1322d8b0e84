"""The closed-form surface: tensor Chebyshev polynomials on tiles of blocks, robust, with modes as the residual asks for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.tensor_chebyshev import TensorChebyshev, basis_1d
from cpikan.fields.tensor_fit import fit_grid
from cpikan.partition import Partition
from cpikan.psi.refine.blocks import Empty
from cpikan.psi.refine.coarse import CoarseHeights
from cpikan.psi.refine.protocol import BLOCK_PX
from cpikan.streaming.ranks import ALONE, Ranks

TILE = 32  # blocks: 256 pixels
OVERLAP = 8
MODES = (6, 14)
DONE = 1.5  # reduced chi squared, robust: what is left is noise
_ROUNDS = 3  # of reweighting
_TUKEY = 6.0  # sigmas at which a block loses all its weight
_FEWEST_PER_MODE = 1.5  # known blocks per coefficient
_MEDIAN_CHI2 = 0.4549  # of one degree of freedom
_CHUNK = 8  # tiles at a time, whoever fits them: rounding depends on which are in a batch
FLOOR_NM = 1e-3  # of a block's sigma: noise-free frames have rounding left


@dataclass(frozen=True)
class TileBlocks:
    """The blocks of every tile: ``height`` and ``sigma`` (N, h, w) in nm, NaN and inf where unknown."""

    partition: Partition[int]
    height: Tensor
    sigma: Tensor

    @classmethod
    def cut(cls, coarse: CoarseHeights, empty: Empty = np.empty) -> TileBlocks:
        """Cut the coarse heights into tiles that overlap; all have one shape."""
        partition = tiles_of(coarse.height_nm.shape)
        height, sigma = (_cut(partition, part, empty) for part in (coarse.height_nm, coarse.sigma_nm))
        return cls(partition, height, sigma.clamp_(min=FLOOR_NM))

    def of(self, blocks: np.ndarray, index: Tensor) -> Tensor:
        """Cut other values of the blocks (..., Hb, Wb) into those of the tiles ``index``, (n, ..., h, w)."""
        return torch.from_numpy(np.stack([self.partition[i].view(blocks) for i in index.tolist()]))

    def chunks(self) -> tuple[Tensor, ...]:
        """Deal all tiles out to those that are worked on at a time."""
        return torch.arange(len(self.height)).split(_CHUNK)


def _cut(partition: Partition[int], blocks: np.ndarray, empty: Empty) -> Tensor:
    views = [box.view(blocks) for box in partition]
    tiles = empty((len(views), *views[0].shape), blocks.dtype)
    for tile, view in zip(tiles, views, strict=True):
        tile[...] = view
    return torch.from_numpy(tiles)


def tiles_of(shape: tuple[int, ...]) -> Partition[int]:
    """Divide the image into tiles of blocks that depend on the image alone."""
    overlap = min(OVERLAP, min(shape) // 2)
    return Partition.tiles(shape, [max(TILE, 2 * overlap)] * 2, overlap)


@dataclass(frozen=True)
class ClosedForm:
    """The fitted field in units of blocks (block k is centred at k + 1/2), and per tile: ``chi2`` (N,), the robust reduced chi
    squared of the blocks, ``modes`` (N,), 0 where nothing was known, and (N, h, w) ``residual`` in nm and ``weight`` (nm^-2),
    what every block counted in the end."""

    field: DecomposedField
    tiles: TileBlocks
    chi2: Tensor
    modes: Tensor
    residual: Tensor
    weight: Tensor


@torch.no_grad()
def fit_closed_form(
    coarse: CoarseHeights,
    good_enough_nm: float = 0.0,
    before: ClosedForm | None = None,
    again: Tensor | None = None,
    empty: Empty = np.empty,
    ranks: Ranks = ALONE,
) -> ClosedForm:
    """Fit every tile with few modes per axis; where the residual stays above noise and ``good_enough_nm``, with more.

    Weights are inverse variances times those of Tukey's biweight, its scale the median residual where that is above noise:
    blocks on another level count less and less. Raises nothing for a tile without data: its modes are 0 and its field is
    NaN there. With ``before`` only the tiles ``again`` (N, bool) are fitted, the others are as they were. Arrays of all blocks
    are made by ``empty``. Several processes fit some chunks of tiles each.
    """
    tiles = TileBlocks.cut(coarse, empty)
    n, h, w = tiles.height.shape
    most = min(MODES[-1], h, w)
    coefficients, residual, weight = (
        torch.from_numpy(empty(shape, np.float64)).fill_(value)
        for shape, value in (((n, most, most), math.nan), ((n, h, w), math.nan), ((n, h, w), 0.0))
    )
    chi2, used = torch.full((n,), math.inf, dtype=torch.float64), torch.zeros(n, dtype=torch.long)
    todo = torch.ones(n, dtype=torch.bool) if again is None else again
    if before is not None:
        held = before.field.parts.get_parameter("coefficients")
        theirs = (held, before.residual, before.weight, before.chi2, before.modes)
        for index in torch.nonzero(~todo).flatten().split(_CHUNK):
            for mine, old in zip((coefficients, residual, weight, chi2, used), theirs, strict=True):
                mine[index] = old[index]
    made = (coefficients, residual, weight, chi2, used)
    for owner, index in shared_chunks(torch.nonzero(todo).flatten(), _CHUNK, ranks):
        if owner == ranks.rank:
            found = _fit_tiles(tiles.height[index], tiles.sigma[index], most, good_enough_nm)
            for mine, new in zip(made, found, strict=True):
                mine[index] = new
    for owner, index in shared_chunks(torch.nonzero(todo).flatten(), _CHUNK, ranks) if ranks.size > 1 else ():
        for mine in made:
            mine[index] = told(ranks, owner, mine[index])
    parts = TensorChebyshev([most, most], DecomposedField.boxes(tiles.partition), networks=n)
    parts.coefficients.data = coefficients  # no copy in memory
    return ClosedForm(DecomposedField(tiles.partition, parts), tiles, chi2, used, residual, weight)


def shared_chunks(tiles: Tensor, chunk: int, ranks: Ranks) -> list[tuple[int, Tensor]]:
    """Cut tiles into those that are worked on at a time, at most ``chunk``, the same for any number of processes.

    They are an even number of parts whose sizes differ by a tile at most, so that two processes have as much to do; gives
    (process, tiles) of each.
    """
    count = min(2 * -(-len(tiles) // (2 * chunk)), len(tiles))
    parts = tiles.tensor_split(count) if count else ()
    return [(number % ranks.size, part) for number, part in enumerate(parts)]


def told(ranks: Ranks, owner: int, values: Tensor) -> Tensor:
    """Take the values of process ``owner``; what others give counts for nothing."""
    return ranks.joined(values if owner == ranks.rank else torch.zeros_like(values))


def _fit_tiles(height: Tensor, sigma: Tensor, most: int, good_enough_nm: float) -> tuple[Tensor, ...]:
    """Fit some tiles: coefficients (n, most, most), residual, weight, chi squared and modes."""
    n = len(height)
    coefficients = torch.full((n, most, most), math.nan, dtype=torch.float64)
    residual, weight = torch.full_like(height, math.nan), torch.zeros_like(height)
    chi2, used = torch.full((n,), math.inf, dtype=torch.float64), torch.zeros(n, dtype=torch.long)
    known = torch.isfinite(height).sum(dim=(1, 2))
    enough = _FEWEST_PER_MODE * min(MODES[0], most) ** 2
    for count in sorted({1, 3, *(min(m, most) for m in MODES)}):
        # fewer modes than the first are for tiles that have not enough blocks for it
        able = (known >= _FEWEST_PER_MODE * count**2) & ((count >= MODES[0]) | (known < enough))
        rough = _median(residual.abs()).nan_to_num(math.inf) > good_enough_nm
        todo = torch.nonzero((chi2 > DONE) & rough & able).flatten()
        if not len(todo):
            continue
        c, rest, counted = _robust(height[todo], sigma[todo], count)
        found = robust_chi2(rest, sigma[todo])
        better = found < chi2[todo]
        index = todo[better]
        coefficients[index] = 0.0
        coefficients[index[:, None, None], torch.arange(count)[:, None], torch.arange(count)] = c[better]
        residual[index], weight[index] = rest[better], counted[better]
        chi2[index], used[index] = found[better], count
    return coefficients, residual, weight, chi2, used


def _robust(height: Tensor, sigma: Tensor, modes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fit with reweighting: coefficients (n, modes, modes), residuals and last weights."""
    weight = torch.where(torch.isfinite(height), sigma**-2, 0.0)
    trust = torch.ones_like(weight)
    for _ in range(_ROUNDS):
        counted = weight * trust
        fit = fit_grid(height, (modes, modes), weights=counted, ridge=1e-10)
        basis = [_basis(m, modes) for m in height.shape[1:]]
        rest = height - basis[0] @ fit.field.coefficients @ basis[1].mT
        score = rest.abs() / sigma
        scale = _median(score) / math.sqrt(_MEDIAN_CHI2)
        reach = (score / (_TUKEY * scale.clamp_min(1.0)[:, None, None])).clamp(max=1.0)
        trust = torch.nan_to_num((1 - reach**2) ** 2, nan=0.0)
    return fit.field.coefficients.detach(), rest, counted


def _basis(cells: int, modes: int) -> Tensor:
    return basis_1d((2 * torch.arange(cells, dtype=torch.float64) + 1) / cells - 1, modes)


def robust_chi2(rest: Tensor, sigma: Tensor) -> Tensor:
    return (_median(rest.abs() / sigma) ** 2) / _MEDIAN_CHI2


def _median(values: Tensor) -> Tensor:
    """Compute the median of the numbers of each problem, NaN left out."""
    return torch.nanmedian(values.flatten(1), dim=1).values


@torch.no_grad()
def on_blocks(closed: ClosedForm, y_order: int, x_order: int, out: np.ndarray) -> None:
    """Fill a derivative of the field in nm per block at the block centres (Hb, Wb), each by the tile owning it."""
    coefficients = closed.field.parts.get_parameter("coefficients")
    left, right = (
        basis_derivative(cells, coefficients.shape[-1], order)
        for cells, order in zip(closed.tiles.height.shape[1:], (y_order, x_order), strict=True)
    )
    for index in closed.tiles.chunks():
        put_cores(out, closed.tiles.partition, index, (left @ coefficients[index] @ right.mT).numpy())


def basis_derivative(cells: int, modes: int, order: int) -> Tensor:
    """Evaluate the derivative of T_0 ... T_(modes-1) at the centres of cells, per cell, (cells, modes)."""
    x = (2 * np.arange(cells) + 1) / cells - 1
    columns = [np.polynomial.chebyshev.chebder(row, order) for row in np.eye(modes)] if order else list(np.eye(modes))
    values = np.stack([np.polynomial.chebyshev.chebval(x, c) for c in columns], axis=1)
    return torch.from_numpy(values * (2 / cells) ** order)


def joined(partition: Partition[int], values: np.ndarray) -> np.ndarray:
    """Join the values that the tiles (N, ..., h, w) give for the blocks they own, (..., Hb, Wb)."""
    whole = np.full((*values.shape[1:-2], *partition.shape), math.nan)
    put_cores(whole, partition, torch.arange(len(values)), values)
    return whole


def put_cores(whole: np.ndarray, partition: Partition[int], index: Tensor, values: np.ndarray) -> None:
    """Put the values of the tiles ``index``, (n, ..., h, w), where the blocks that they own are in (..., Hb, Wb)."""
    for number, tile in zip(index.tolist(), values, strict=True):
        box = partition[number]
        box.core_view(whole)[...] = tile[(..., *box.core_inside)]


_TILES_AT_A_TIME = 32  # tiles at a time
# sums of derivatives: of which order by y and by x
QUANTITIES = {"value": ((0, 0),), "slope_y": ((1, 0),), "slope_x": ((0, 1),), "curvature": ((2, 0), (0, 2))}


@torch.no_grad()
def posterior_sigma(
    closed: ClosedForm, quantities: tuple[str, ...] = ("value",), *, outermost: bool = False, empty: Empty = np.empty
) -> np.ndarray:
    """Compute the sigma of ``quantities`` at the centres of blocks, (Q, Hb, Wb), in nm and nm per block (squared).

    Every block's is that of the tile that owns it: sqrt(f' (F' W F)^-1 f), f the features there, W the weights of the last
    fit, times the square root of the tile's reduced chi squared where that is above one. NaN where nothing was fitted.
    ``outermost`` takes the blocks on the rim of a tile at their outermost pixels, where derivatives are worst known.
    The result is made by ``empty``.
    """

    def variances(bases: list[list[Tensor]], inverse: Tensor, chi2: Tensor) -> Tensor:
        places = [_on_the_rim(basis) for basis in bases] if outermost else bases
        found = torch.stack([_variance(places, inverse, QUANTITIES[name]) for name in quantities], dim=1)
        return found * chi2.clamp_min(1.0)[:, None, None, None]

    found = _of_tiles(closed, len(quantities), variances, empty)
    return np.sqrt(found, out=found)


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


def _of_tiles(closed: ClosedForm, count: int, work: Callable[..., Tensor], empty: Empty = np.empty) -> np.ndarray:
    """Compute ``work(bases, inverse, chi2)`` of the tiles, those with as many modes together: (count, Hb, Wb)."""
    cells, partition = closed.tiles.height.shape[1:], closed.tiles.partition
    found = empty((count, *partition.shape), np.float64)
    found.fill(math.nan)
    for modes in torch.unique(closed.modes[closed.modes > 0]).tolist():
        bases = [[basis_derivative(n, modes, order) for order in range(3)] for n in cells]
        for some in torch.nonzero(closed.modes == modes).flatten().split(_TILES_AT_A_TIME):
            values = work(bases, _inverse(bases, closed.weight[some]), closed.chi2[some]).numpy()
            put_cores(found, partition, some, values)
    return found


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
