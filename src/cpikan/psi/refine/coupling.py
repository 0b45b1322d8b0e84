"""Coupling of the tiles of a closed-form surface: neighbours are fitted again so that they agree where both know the surface.

Minimised is the sum of what every tile's surface lies off its own blocks and, weighed more, off its neighbours' surfaces on the
blocks that they share: least squares with a penalty on jumps, as in XPINN (Jagtap and Karniadakis 2020), solved by
multiplicative Schwarz sweeps over four colours of tiles, no two of one colour overlapping (Dolean, Jolivet, Nataf 2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.fields.tensor_fit import fit_grid
from cpikan.psi.refine.blocks import Empty
from cpikan.psi.refine.closed_form import ClosedForm, basis_derivative, robust_chi2, shared_chunks, told
from cpikan.streaming.ranks import ALONE, Ranks

_STRENGTH = 10.0  # of the agreement with a neighbour on a block, in units of what the block weighs
_SWEEPS = 3
_CHUNK = 8  # tiles at a time, as in the closed form


@dataclass(frozen=True)
class _Tiles:
    """What a sweep changes: ``coefficients`` (N, m, m), the surfaces ``own`` (N, h, w) on the tiles' blocks, and their sum over
    all tiles ``total`` (Hb, Wb); beside them how many tiles know each block, and the least that it weighs in one of them."""

    coefficients: Tensor
    own: np.ndarray
    total: np.ndarray
    count: np.ndarray
    least: np.ndarray


@torch.no_grad()
def couple(closed: ClosedForm, empty: Empty = np.empty, ranks: Ranks = ALONE) -> ClosedForm:
    """Fit all tiles again, each to its blocks and to its neighbours; blocks that one of them distrusts do not bind.

    Weights are those of the last fit. A field of one tile is as it was. Arrays of blocks are made by ``empty``. Several
    processes share the tiles of a colour, which have nothing to do with each other, and tell each other what they found.
    """
    if len(closed.tiles.partition) < 2 or not bool((closed.modes > 0).any()):
        return closed
    state = _start(closed, empty)
    for _ in range(_SWEEPS):
        for same in _colours(closed):
            chunks = shared_chunks(same, _CHUNK, ranks)
            for owner, index in chunks:
                if owner == ranks.rank:
                    state.coefficients[index] = _refitted(closed, state, index)
            for owner, index in chunks:
                if ranks.size > 1:
                    state.coefficients[index] = told(ranks, owner, state.coefficients[index])
                _redraw(closed, state, index)
    parts = TensorChebyshev(
        list(state.coefficients.shape[1:]), DecomposedField.boxes(closed.tiles.partition), networks=len(closed.modes)
    )
    parts.coefficients.data = state.coefficients
    residual, chi2 = closed.residual.clone(), closed.chi2.clone()
    for index in torch.nonzero(closed.modes > 0).flatten().split(_CHUNK):
        residual[index] = closed.tiles.height[index] - torch.from_numpy(state.own[index.numpy()])
        chi2[index] = robust_chi2(residual[index], closed.tiles.sigma[index])
    field = DecomposedField(closed.tiles.partition, parts)
    return replace(closed, field=field, residual=residual, chi2=chi2)


def _weights(closed: ClosedForm, index: Tensor) -> Tensor:
    """Compute what the blocks of tiles weigh: their scatter about the surface counts as noise."""
    return closed.weight[index] / closed.chi2[index].clamp_min(1.0)[:, None, None]


def _start(closed: ClosedForm, empty: Empty) -> _Tiles:
    partition, shape = closed.tiles.partition, closed.tiles.partition.shape
    coefficients = closed.field.parts.get_parameter("coefficients").detach().clone()
    own = empty(tuple(closed.tiles.height.shape), np.float64)
    total, count, least = empty(shape, np.float64), empty(shape, np.int8), empty(shape, np.float64)
    for array, value in ((total, 0.0), (count, 0), (least, np.inf)):
        array.fill(value)
    for index in torch.nonzero(closed.modes > 0).flatten().split(_CHUNK):
        own[index.numpy()] = _drawn(closed, coefficients[index]).numpy()
        for tile, weight in zip(index.tolist(), _weights(closed, index).numpy(), strict=True):
            box = partition[tile]
            box.view(total)[...] += own[tile]
            box.view(count)[...] += 1
            part = box.view(least)
            np.minimum(part, weight, out=part)
    return _Tiles(coefficients, own, total, count, least)


def _drawn(closed: ClosedForm, coefficients: Tensor) -> Tensor:
    """Evaluate the surfaces of tiles at the centres of their blocks, (n, h, w)."""
    left, right = (basis_derivative(cells, coefficients.shape[-1], 0) for cells in closed.tiles.height.shape[1:])
    return left @ coefficients @ right.mT


def _colours(closed: ClosedForm) -> Iterator[Tensor]:
    """Deal the tiles with a surface out to four colours, and each to those of as many modes."""
    parity = torch.tensor([2 * (box.position[0] % 2) + box.position[1] % 2 for box in closed.tiles.partition])
    for colour in range(4):
        for modes in torch.unique(closed.modes[closed.modes > 0]).tolist():
            found = torch.nonzero((parity == colour) & (closed.modes == modes)).flatten()
            if len(found):
                yield found


def _refitted(closed: ClosedForm, state: _Tiles, index: Tensor) -> Tensor:
    """Fit tiles with as many modes to their blocks and to the other tiles' surfaces, as those stand: coefficients (n, m, m)."""
    tiles, modes = closed.tiles, int(closed.modes[index[0]])
    own = torch.from_numpy(state.own[index.numpy()])
    others = (tiles.of(state.count, index).double() - 1).clamp_min(0)
    bond = torch.where(others > 0, _STRENGTH * tiles.of(state.least, index), 0.0)
    mine = _weights(closed, index)
    height = torch.nan_to_num(tiles.height[index])
    weight = mine + bond * others
    wanted = (mine * height + bond * (tiles.of(state.total, index) - own)) / weight.clamp_min(1e-300)
    found = fit_grid(wanted, (modes, modes), weights=weight, ridge=1e-10).field.coefficients.detach()
    coefficients = state.coefficients[index]
    coefficients[:, :modes, :modes] = found
    return coefficients


def _redraw(closed: ClosedForm, state: _Tiles, index: Tensor) -> None:
    """Put the surfaces of tiles in the place of what they were."""
    own, new = state.own[index.numpy()], _drawn(closed, state.coefficients[index]).numpy()
    for tile, before, after in zip(index.tolist(), own, new, strict=True):
        closed.tiles.partition[tile].view(state.total)[...] += after - before
    state.own[index.numpy()] = new
