"""The refiner that fits a field: a closed-form surface through coarse heights, and networks where it leaves more than noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cpikan.fields.grid_evaluator import GridEvaluator
from cpikan.psi.kernels.model import DemodulatedRows
from cpikan.psi.refine.blocks import Empty
from cpikan.psi.refine.closed_form import DONE, ClosedForm, fit_closed_form, on_blocks, posterior_sigma
from cpikan.psi.refine.coarse import CoarseHeights, joint, shifted
from cpikan.psi.refine.footprint import Derivatives
from cpikan.psi.refine.network import NetworkFit, fit_networks
from cpikan.psi.refine.protocol import BLOCK_PX, SurfaceRows

STEP_NM = 150.0  # a pixel may lie this far from the surface of its blocks: etched steps of 120 nm are no order errors
_ROUNDS = 4  # of moving heights to the centres of their blocks
_WHOLE_PX = 0.4  # off the centre: blocks with single pixels missing lie nearer, those that lack a row farther
_SETTLED = 0.1  # of what blocks of a tile scatter by, RMS: where heights move by less, another round changes nothing
_STRIP = 64  # rows of blocks that are looked at together
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

    def sigma_nm(self) -> np.ndarray:
        """Estimate the surface's standard uncertainty in nm at blocks (Hb, Wb) float32; inf where ``allowed_nm`` is.

        Of its coefficients, and what the coarse heights around lie off it beyond their noise, less the part of it that the
        fit follows and that residuals lack: details it cannot follow.
        """
        fitted = np.nan_to_num(posterior_sigma(self.closed)[0], nan=np.inf)
        known = np.isfinite(self.residual_nm)
        noise = np.where(known, self.coarse.sigma_nm, 0.0)
        excess = np.where(known, self.residual_nm**2 - noise**2 + fitted**2, 0.0)
        count = np.maximum(_around(known.astype(float)), 1)
        sigma = np.sqrt(fitted**2 + np.maximum(_around(excess) / count, 0))
        return np.where(np.isfinite(self.allowed_nm), sigma, np.inf).astype(np.float32)

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute the gradient (2, Hb, Wb) in nm per pixel and the curvature in nm per pixel^2 at block centres.

        The curvature is the sum of the second derivatives; both are exact.
        """
        gradient, (by_y, by_x, _) = _derivatives(self.closed)
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


def guiding_surface(coarse: CoarseHeights, empty: Empty = np.empty) -> FittedSurface:
    """Fit a surface that is good enough to decide orders: closed form, to a fraction of the allowance for steps.

    Arrays of blocks are made by ``empty``.
    """
    return _fitted(coarse, fit_closed_form(coarse, STEP_NM / 2, empty=empty), None, empty)


def measuring_surface(coarse: CoarseHeights, *, networks: bool = True) -> FittedSurface:
    """Fit a surface for its own sake.

    Closed form, heights moved to the centres of their blocks, closed form again, and ``networks`` where it leaves more
    than noise.
    """
    centred, closed = _recentred(coarse)
    return _fitted(centred, closed, fit_networks(closed, centred) if networks else None)


def _recentred(coarse: CoarseHeights) -> tuple[CoarseHeights, ClosedForm]:
    """Move heights to the centres of the blocks and fit the closed form through them.

    How far a block lies off its centre takes slopes, and these a fit: first one without the blocks that the rim of a mask
    cuts, then one with them; each further round halves the error. Tiles whose heights stay are not fitted again.
    """
    whole = np.hypot(*coarse.footprint.offset_px) <= _WHOLE_PX
    closed = fit_closed_form(replace(coarse, height_nm=np.where(whole, coarse.height_nm, np.nan)), STEP_NM / 2)
    shift, again = coarse.footprint.shift_nm(_derivatives(closed)), None
    for _ in range(_ROUNDS):
        centred = shifted(coarse, shift)
        closed = fit_closed_form(centred, 0.0, closed, again)
        fresh = coarse.footprint.shift_nm(_derivatives(closed))
        moved = torch.from_numpy(np.nan_to_num(joint(coarse, fresh - shift)))
        score = closed.tiles.of(moved) / (closed.tiles.sigma * closed.chi2.clamp_min(1.0).sqrt()[:, None, None])
        known = torch.isfinite(closed.tiles.height)
        square = torch.where(known, score, 0.0).square().sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp_min(1)
        again = (square > _SETTLED**2) & (closed.modes > 0)
        if not again.any():
            break
        shift = fresh
    return centred, closed


def _fitted(
    coarse: CoarseHeights, closed: ClosedForm, networks: NetworkFit | None, empty: Empty = np.empty
) -> FittedSurface:
    fields = [fit.field for fit in (closed, networks) if fit is not None]
    rows, columns = coarse.height_nm.shape
    on_blocks_of = [GridEvaluator(field, np.arange(rows) + 0.5, np.arange(columns) + 0.5) for field in fields]
    residual, allowed = empty((rows, columns), np.float64), empty((rows, columns), np.float32)
    strips = [(first, min(first + _STRIP, rows)) for first in range(0, rows, _STRIP)]
    for first, last in strips:
        blocks = np.zeros((last - first, columns), np.float32)
        for evaluator in on_blocks_of:
            part = np.empty_like(blocks)
            evaluator.fill(first, part)
            blocks += part
        residual[first:last] = coarse.height_nm[first:last] - blocks
    for first, last in strips:
        low = max(0, first - _NEAR)
        found = _allowed(residual[low : last + _NEAR], coarse.half_wave_nm)
        allowed[first:last] = found[first - low : last - low]
    y, x = ((np.arange(n) + 0.5) / BLOCK_PX for n in coarse.shape)
    return FittedSurface(
        closed, networks, coarse, residual, allowed, tuple(GridEvaluator(field, y, x) for field in fields)
    )


def _derivatives(closed: ClosedForm) -> Derivatives:
    """Differentiate the closed form exactly at the centres of the blocks, in nm per pixel and per pixel^2."""
    gradient = np.stack([on_blocks(closed, 1, 0), on_blocks(closed, 0, 1)]) / BLOCK_PX
    return Derivatives(gradient, np.stack([on_blocks(closed, *k) for k in ((2, 0), (0, 2), (1, 1))]) / BLOCK_PX**2)


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
