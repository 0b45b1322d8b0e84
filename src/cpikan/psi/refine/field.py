"""The refiner that fits a field: a closed-form surface through coarse heights, and networks where it leaves more than noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cpikan.fields.grid_evaluator import GridEvaluator
from cpikan.psi.kernels.model import DemodulatedRows
from cpikan.psi.refine.blocks import Empty, strips
from cpikan.psi.refine.closed_form import DONE, ClosedForm, fit_closed_form, on_blocks, posterior_sigma
from cpikan.psi.refine.coarse import CoarseHeights, joint, shifted
from cpikan.psi.refine.coupling import couple
from cpikan.psi.refine.footprint import Derivatives
from cpikan.psi.refine.network import NetworkFit, fit_networks
from cpikan.psi.refine.protocol import BLOCK_PX, SurfaceRows
from cpikan.streaming.ranks import ALONE, Ranks

STEP_NM = 150.0  # a pixel may lie this far from the surface of its blocks: etched steps of 120 nm are no order errors
_ROUNDS = 4  # of moving heights to the centres of their blocks
_WHOLE_PX = 0.4  # off the centre: blocks with single pixels missing lie nearer, those that lack a row farther
_SETTLED = 0.1  # of what blocks of a tile scatter by, RMS: where heights move by less, another round changes nothing
_NEAR = 2  # blocks: beyond this distance from a measured block the surface is a guess


@dataclass(frozen=True)
class FittedSurface:
    """A fitted field as a `Refiner`.

    ``residual_nm`` (Hb, Wb) is what the coarse heights lie off it; ``allowed_nm`` how far pixels of a block may rightly lie
    off, infinite where the surface knows nothing.
    """

    closed: ClosedForm
    networks: NetworkFit | None
    coarse: CoarseHeights
    residual_nm: np.ndarray
    allowed_nm: np.ndarray
    evaluators: tuple[GridEvaluator, ...]
    halo: int = 0

    def surface(self, rows: DemodulatedRows, first_row: int, keep: slice) -> SurfaceRows:
        """Evaluate the surface on the rows ``keep``; it was fitted before and does not look at those rows again."""
        return self.rows(first_row + keep.start, first_row + keep.stop, self.allowed_nm)

    def rows(self, start: int, stop: int, block_sigma_nm: np.ndarray) -> SurfaceRows:
        """Evaluate image rows [start, stop) in nm, with the sigma of their blocks."""
        width = self.coarse.shape[1]
        height = np.empty((stop - start, width), np.float32)
        self.evaluators[0].fill(start, height)
        for evaluator in self.evaluators[1:]:
            more = np.empty_like(height)
            evaluator.fill(start, more)
            height += more
        sigma = block_sigma_nm[np.arange(start, stop) // BLOCK_PX][:, np.arange(width) // BLOCK_PX]
        return SurfaceRows(height, np.where(np.isfinite(height), sigma, np.float32(np.inf)))

    def sigma_nm(self, empty: Empty = np.empty) -> np.ndarray:
        """Estimate the surface's standard uncertainty in nm at blocks (Hb, Wb) float32; inf where ``allowed_nm`` is.

        Of its coefficients, and what the coarse heights around lie off it beyond their noise, less the part of it that the
        fit follows and that residuals lack: details it cannot follow. Arrays of blocks are made by ``empty``.
        """
        fitted, out = posterior_sigma(self.closed, empty=empty)[0], empty(self.allowed_nm.shape, np.float32)
        for rows in strips(len(out)):
            low = max(0, rows.start - 1)
            some = slice(low, rows.stop + 1)  # a row on either side has a say
            found = self._sigma_of(np.nan_to_num(fitted[some], nan=np.inf), some)
            out[rows] = found[rows.start - low : rows.stop - low]
        return out

    def _sigma_of(self, fitted: np.ndarray, rows: slice) -> np.ndarray:
        """Estimate the sigma of rows of blocks, but for the first and last, from that of the fit."""
        residual = self.residual_nm[rows]
        known = np.isfinite(residual)
        noise = np.where(known, self.coarse.sigma_nm[rows], 0.0)
        excess = np.where(known, residual**2 - noise**2 + fitted**2, 0.0)
        count = np.maximum(_around(known.astype(float)), 1)
        sigma = np.sqrt(fitted**2 + np.maximum(_around(excess) / count, 0))
        return np.where(np.isfinite(self.allowed_nm[rows]), sigma, np.inf)

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute the gradient (2, Hb, Wb) in nm per pixel and the curvature in nm per pixel^2 at block centres.

        The curvature is the sum of the second derivatives; both are exact.
        """
        gradient, (by_y, by_x, _) = _derivatives(self.closed, np.empty)
        curvature = by_y + by_x
        if self.networks is None or not self.networks.kept:
            return gradient, curvature
        more = self.networks.slopes()
        return gradient + more[0] / BLOCK_PX, curvature + more[1] / BLOCK_PX**2

    def summary(self) -> dict[str, Any]:
        """Count what became of the tiles, JSON-able."""
        known, modes = self.coarse.known, self.closed.modes
        return {
            "blocks_known": float(known.mean()),
            "tiles": len(modes),
            "tiles_without_data": int((modes == 0).sum()),
            "tiles_above_noise": int(((self.closed.chi2 > DONE) & (modes > 0)).sum()),
            "networks_tried": 0 if self.networks is None else self.networks.tried,
            "networks_kept": 0 if self.networks is None else self.networks.kept,
        }


def guiding_surface(coarse: CoarseHeights, empty: Empty = np.empty, ranks: Ranks = ALONE) -> FittedSurface:
    """Fit a surface that is good enough to decide orders: closed form, to a fraction of the allowance for steps.

    Arrays of blocks are made by ``empty``. Several processes share the tiles.
    """
    return _fitted(coarse, fit_closed_form(coarse, STEP_NM / 2, empty=empty, ranks=ranks), None, empty)


def measuring_surface(
    coarse: CoarseHeights, *, networks: bool = True, empty: Empty = np.empty, ranks: Ranks = ALONE
) -> FittedSurface:
    """Fit a surface for its own sake.

    Closed form, heights moved to the centres of their blocks, closed form again, neighbouring tiles coupled, and
    ``networks`` where it leaves more than noise. Arrays of blocks are made by ``empty``. Several processes share the tiles.
    """
    centred, closed = _recentred(coarse, empty, ranks)
    closed = couple(closed, empty, ranks)
    return _fitted(centred, closed, fit_networks(closed, centred, ranks) if networks else None, empty)


def _recentred(coarse: CoarseHeights, empty: Empty, ranks: Ranks) -> tuple[CoarseHeights, ClosedForm]:
    """Move heights to the centres of the blocks and fit the closed form through them.

    How far a block lies off its centre takes slopes, and these a fit: first one without the blocks that the rim of a mask
    cuts, then one with them; each further round halves the error. Tiles whose heights stay are not fitted again.
    """
    closed = fit_closed_form(_of_whole_blocks(coarse, empty), STEP_NM / 2, empty=empty, ranks=ranks)
    shift, again = _shifts_nm(coarse, closed, empty), None
    for _ in range(_ROUNDS):
        centred = shifted(coarse, shift, empty)
        closed = fit_closed_form(centred, 0.0, closed, again, empty, ranks)
        fresh = _shifts_nm(coarse, closed, empty)
        again = (_mean_score(coarse, closed, shift, fresh, empty) > _SETTLED**2) & (closed.modes > 0)
        if not again.any():
            break
        shift = fresh
    return centred, closed


def _of_whole_blocks(coarse: CoarseHeights, empty: Empty) -> CoarseHeights:
    """Leave out the blocks that lack pixels on one side."""
    height = empty(coarse.height_nm.shape, np.float64)
    for rows in strips(len(height)):
        whole = np.hypot(*coarse.footprint.offset_px[:, rows]) <= _WHOLE_PX
        height[rows] = np.where(whole, coarse.height_nm[rows], np.nan)
    return replace(coarse, height_nm=height)


def _shifts_nm(coarse: CoarseHeights, closed: ClosedForm, empty: Empty) -> np.ndarray:
    """Compute how far the blocks of the closed form lie above their centres, in nm (L, Hb, Wb)."""
    there, shift = _derivatives(closed, empty), empty(coarse.turns.shape, np.float64)
    for rows in strips(shift.shape[1]):
        some = Derivatives(*(part[:, rows] for part in there))
        shift[:, rows] = coarse.footprint.part(rows).shift_nm(some)
    return shift


def _mean_score(
    coarse: CoarseHeights, closed: ClosedForm, before: np.ndarray, after: np.ndarray, empty: Empty
) -> torch.Tensor:
    """Average the squares of how far the blocks of every tile have moved, in units of what they scatter by, (N,)."""
    moved, tiles = empty(coarse.height_nm.shape, np.float64), closed.tiles
    for rows in strips(len(moved)):
        moved[rows] = np.nan_to_num(joint(coarse, after[:, rows] - before[:, rows], rows))
    found = torch.empty(len(tiles.height), dtype=torch.float64)
    for index in tiles.chunks():
        scale = closed.chi2[index].clamp_min(1.0).sqrt()[:, None, None]
        score = tiles.of(moved, index) / (tiles.sigma[index] * scale)
        known = torch.isfinite(tiles.height[index])
        found[index] = torch.where(known, score, 0.0).square().sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp_min(1)
    return found


def _fitted(
    coarse: CoarseHeights, closed: ClosedForm, networks: NetworkFit | None, empty: Empty = np.empty
) -> FittedSurface:
    # networks that were not kept are zero everywhere
    fields = [closed.field, *([networks.field] if networks is not None and networks.kept else [])]
    rows, columns = coarse.height_nm.shape
    on_blocks_of = [GridEvaluator(field, np.arange(rows) + 0.5, np.arange(columns) + 0.5) for field in fields]
    residual, allowed = empty((rows, columns), np.float64), empty((rows, columns), np.float32)
    for some in strips(rows):
        blocks = np.zeros((some.stop - some.start, columns), np.float32)
        for evaluator in on_blocks_of:
            part = np.empty_like(blocks)
            evaluator.fill(some.start, part)
            blocks += part
        residual[some] = coarse.height_nm[some] - blocks
    for some in strips(rows):
        low = max(0, some.start - _NEAR)
        found = _allowed(residual[low : some.stop + _NEAR], coarse.half_wave_nm)
        allowed[some] = found[some.start - low : some.stop - low]
    y, x = ((np.arange(n) + 0.5) / BLOCK_PX for n in coarse.shape)
    return FittedSurface(
        closed, networks, coarse, residual, allowed, tuple(GridEvaluator(field, y, x) for field in fields)
    )


def _derivatives(closed: ClosedForm, empty: Empty) -> Derivatives:
    """Differentiate the closed form exactly at the centres of the blocks, in nm per pixel and per pixel^2."""
    found = []
    for orders in (((1, 0), (0, 1)), ((2, 0), (0, 2), (1, 1))):
        part = empty((len(orders), *closed.tiles.partition.shape), np.float64)
        for out, order in zip(part, orders, strict=True):
            on_blocks(closed, *order, out)
            out /= BLOCK_PX ** sum(order)
        found.append(part)
    return Derivatives(*found)


def _allowed(residual: np.ndarray, half_wave_nm: float) -> np.ndarray:
    """Compute how far in nm pixels may lie off: the allowance for steps, and the largest residual of the blocks around.

    Infinite where those blocks lie a quarter order or more off (the surface does not follow there), and where no block
    nearby is known.
    """
    known = np.isfinite(residual)
    size = np.where(known, np.abs(residual), 0.0)
    around, near = _largest(size, 1), _largest(known.astype(float), _NEAR) > 0
    sigma = np.hypot(STEP_NM, around)
    return np.where(near & (around < half_wave_nm / 4), sigma, np.inf).astype(np.float32)


def _largest(values: np.ndarray, reach: int) -> np.ndarray:
    """Find the largest value within ``reach`` blocks."""
    return _windows(values, reach).max(axis=(-2, -1))


def _around(values: np.ndarray) -> np.ndarray:
    """Sum over 3 x 3 blocks."""
    return _windows(values, 1).sum(axis=(-2, -1))


def _windows(values: np.ndarray, reach: int) -> np.ndarray:
    """View every block's neighbourhood, zeros beyond the image."""
    side = 2 * reach + 1
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, reach), (side, side))
