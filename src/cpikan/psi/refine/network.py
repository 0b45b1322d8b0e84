"""Scaled-cPIKAN on the tiles where the closed form leaves more than noise: a correction, fitted to phasors in batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.levenberg_marquardt import Settings, minimise
from cpikan.learning.normal_equations import NormalEquations
from cpikan.physics.interferogram import PhasorResiduals
from cpikan.psi.refine.closed_form import DONE, ClosedForm, joined, robust_chi2, shared_chunks
from cpikan.psi.refine.coarse import CoarseHeights
from cpikan.streaming.ranks import ALONE, Ranks

WIDTHS, DEGREE = (2, 6, 6, 1), 4  # 229 parameters a tile, for 512 blocks that are fitted and 512 that judge
_ITERATIONS = 12
_CHUNK = 32  # tiles that are tried before it is asked whether more are worth it
_TOGETHER = 4  # of them in a batch, the same for any number of processes: Jacobians of 4 MiB
_YIELD = 0.1  # of a chunk's tiles: where fewer are better with a network, no more are tried
_BETTER = 0.9  # of the closed form's chi squared, on blocks the network has not seen


@dataclass(frozen=True)
class NetworkFit:
    """Networks as a field over the same tiles, zero where they were not needed or not better; how many tiles were ``above``
    noise, ``tried`` and ``kept``, and ``chi2`` (N,) after them."""

    field: DecomposedField
    above: int
    tried: int
    kept: int
    chi2: Tensor

    @property
    def _parts(self) -> ScaledCPIKAN:
        assert isinstance(self.field.parts, ScaledCPIKAN)
        return self.field.parts

    @torch.no_grad()
    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute the gradient (2, Hb, Wb) and sum of second derivatives (Hb, Wb) in nm per block (squared).

        At the centres of the blocks, each by the tile that owns it.
        """
        partition = self.field.partition
        lower = torch.tensor(DecomposedField.boxes(partition)[0], dtype=torch.float64)
        y, x = torch.meshgrid(*(torch.arange(n) for n in partition[0].shape), indexing="ij")
        jet = self._parts.jet(lower[:, None, None] + torch.stack([y, x], dim=-1) + 0.5, "laplacian")
        gradient = joined(partition, jet.gradient[..., 0, :].movedim(-1, 1).numpy())
        return gradient, joined(partition, jet.second[..., 0].numpy())


@dataclass(frozen=True)
class _Problem:
    """`PhasorResiduals` as the solver wants them."""

    residuals: PhasorResiduals

    def cost(self, parameters: Tensor) -> Tensor:
        return self.residuals.cost(parameters)

    def linearise(self, parameters: Tensor) -> NormalEquations:
        return NormalEquations(*self.residuals.normal(parameters))

    def take(self, index: Tensor) -> _Problem:
        return _Problem(self.residuals.take(index))


@torch.no_grad()
def fit_networks(closed: ClosedForm, coarse: CoarseHeights, ranks: Ranks = ALONE) -> NetworkFit:
    """Fit a network per tile above noise, by Levenberg-Marquardt on the phasors of every other block (1/128 of pixels).

    It starts at zero, on top of the closed form, and stays where its blocks that were not fitted fit better than before by
    a tenth; a tile that was not better keeps the closed form. Chunks of tiles are tried while one in ten gains by it; several
    processes fit some tiles each of every chunk.
    """
    partition = closed.tiles.partition
    active = torch.nonzero((closed.chi2 > DONE) & (closed.modes > 0)).flatten()
    parts = ScaledCPIKAN(WIDTHS, DEGREE, DecomposedField.boxes(partition), networks=len(partition))
    vectors = _without_output(parts)
    chi2, kept = closed.chi2.clone(), 0
    tried = 0
    for index in _chunks(active, closed.chi2):
        found, better, after = _fitted(closed, coarse, index, vectors, ranks)
        vectors[index[better]], chi2[index[better]] = found[better], after[better]
        kept, tried = kept + int(better.sum()), tried + len(index)
        if int(better.sum()) < _YIELD * len(index):
            break  # the tiles left over are like these: the closed form does as well
    set_parameters(parts, vectors)
    return NetworkFit(DecomposedField(partition, parts), len(active), tried, kept, chi2)


def _fitted(
    closed: ClosedForm, coarse: CoarseHeights, index: Tensor, vectors: Tensor, ranks: Ranks
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit the networks of a chunk of tiles: parameters (n, P), whether they are better, and chi squared, (n,)."""
    height = closed.tiles.height[index]
    base = torch.where(torch.isfinite(height), height - closed.residual[index], 0.0)
    unit = float(torch.nanmedian((height - base).abs())) + 1e-9  # of the chunk, whoever fits its tiles
    table = torch.zeros(len(index), vectors.shape[1] + 2, dtype=torch.float64)
    for owner, mine in shared_chunks(torch.arange(len(index)), _TOGETHER, ranks):
        if owner == ranks.rank:
            some = index[mine]
            turns, weight = (closed.tiles.of(values, some) for values in (coarse.turns, coarse.weight))
            found, better, after = _Batch.of(closed, coarse, some, turns, weight).fit(vectors[some], unit)
            table[mine] = torch.cat([found, better[:, None], after[:, None]], dim=1)
    table = ranks.joined(table)
    return table[:, :-2], table[:, -2] > 0, table[:, -1]


@dataclass(frozen=True)
class _Batch:
    """Some tiles: one problem each on half of the blocks, and what is needed to judge them on the other half.

    Tiles have one shape, so all share the scaled ``points`` (1, B, 2) and the unit box of ``shape``.
    """

    shape: ScaledCPIKAN
    points: Tensor
    base: Tensor
    turns: Tensor
    weight: Tensor
    height: Tensor
    sigma: Tensor
    nm_per_turn: Tensor
    fitted: Tensor

    @classmethod
    def of(
        cls,
        closed: ClosedForm,
        coarse: CoarseHeights,
        index: Tensor,
        turns: Tensor,
        weight: Tensor,
    ) -> _Batch:
        tiles = closed.tiles
        places = [(2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in tiles.height.shape[1:]]
        points = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1).reshape(1, -1, 2)
        y, x = torch.meshgrid(*(torch.arange(n) for n in tiles.height.shape[1:]), indexing="ij")
        height, sigma, rest = (part[index].flatten(1) for part in (tiles.height, tiles.sigma, closed.residual))
        known = torch.isfinite(height)
        weight = torch.where(known[:, None], weight.flatten(2), 0.0)
        return cls(
            ScaledCPIKAN(WIDTHS, DEGREE, networks=len(index), start=None),
            points,
            torch.where(known, height - rest, 0.0),
            turns.flatten(2),
            weight,
            height,
            sigma,
            torch.from_numpy(coarse.nm_per_turn),
            ((y + x) % 2 == 0).flatten(),
        )

    def fit(self, start: Tensor, unit: float) -> tuple[Tensor, Tensor, Tensor]:
        """Fit parameters in a ``unit`` of nm; tell whether they beat zero, and give chi squared of blocks not fitted."""
        rest = self.height - self.base
        half = self.fitted
        problem = PhasorResiduals(
            self.shape,
            self.points[:, half],
            self.base[:, half],
            self.turns[..., half],
            self.weight[..., half],
            self.nm_per_turn,
            unit,
        )
        found = minimise(_Problem(problem), start, Settings(_ITERATIONS, damping=1e-2)).parameters
        judge = PhasorResiduals(self.shape, self.points, self.base, self.turns, self.weight, self.nm_per_turn, unit)
        after = robust_chi2((self.height - judge.height_nm(found))[:, ~half], self.sigma[:, ~half])
        before = robust_chi2(rest[:, ~half], self.sigma[:, ~half])
        size = len(self.shape.chebyshev_layers()[-1].weight[0]) + 1
        found[:, -size:] *= unit  # outputs in nm
        return found, after < _BETTER * before, after


def _chunks(active: Tensor, chi2: Tensor) -> list[Tensor]:
    """Deal the tiles out to chunks that are each a fair sample, in the order of how far they are above noise."""
    ranked = active[torch.argsort(chi2[active], descending=True, stable=True)]
    count = max(1, -(-len(ranked) // _CHUNK))
    return [ranked[first::count] for first in range(count)] if len(ranked) else []


def _without_output(parts: ScaledCPIKAN) -> Tensor:
    """Start the hidden layers of all networks alike, with an output of zero."""
    vector = parameter_vector(parts)
    size = len(parts.chebyshev_layers()[-1].weight[0]) + 1
    vector[:, -size:] = 0
    return vector
