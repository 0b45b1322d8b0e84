"""Uncertainty of the parameters of the frames, with residuals that are neither white nor independent."""

from __future__ import annotations

import numpy as np

from cpikan.psi.calibration.steps.iterate import Solution
from cpikan.psi.calibration.steps.model import Samples, evaluate

_CELLS = (16, 6)  # along each side: fine ones for local misfit, coarse ones for uneven light
_FEWEST = 12
_LARGEST_CORRECTION = 4.0


def covariance_of(samples: Samples, solution: Solution) -> np.ndarray:
    """Estimate the covariance of the parameters of frames and smooth fields, the larger of two predictions for each.

    One takes what is left over as white noise (the inverse normal matrix); the other lets it be correlated within cells of
    the field, so that uneven light that the smooth fields miss counts as what it is (cluster-robust sandwich, Liang and
    Zeger, Biometrika 73, 13 (1986), with the correction for the parameters that the cells have lost).
    """
    plain = solution.covariance()
    own = np.sqrt(np.maximum(np.diag(plain), 1e-300))
    scores = _scores(samples, solution)
    factor = np.ones(len(own))
    for number in _CELLS:
        summed = _sum_in_cells(scores, samples.waves[1], samples.waves[2], number)
        count = summed.shape[1]
        if count < _FEWEST:
            continue
        lost = solution.layout.own + solution.layout.terms if number == _CELLS[0] else 1
        correction = min(count / max(count - lost, 1), _LARGEST_CORRECTION)
        spread = np.sqrt(correction * ((plain @ summed) ** 2).sum(axis=1))
        factor = np.maximum(factor, spread / own)
    return plain * factor[:, None] * factor


def _scores(samples: Samples, solution: Solution) -> np.ndarray:
    """Compute the score of each pixel for each parameter (n, P); at the solution scores sum to the weak priors' alone."""
    layout, normal, spread = solution.layout, solution.normal, solution.spread
    found = evaluate(samples, layout, solution.state)
    at = layout.unpack(solution.state.theta)
    scores = np.empty((layout.size, samples.pixels))
    frames = scores[: layout.of_frames].reshape(samples.frames - 1, layout.per_frame, samples.pixels)
    np.multiply(normal.slopes, normal.scaled_rest[1:, None], out=frames)
    weighted = normal.scaled_rest * (at.gain[:, None] / spread.noise) * solution.state.pixel[1]
    scores[layout.of_frames : layout.own] = np.einsum("hkp,kp->hp", found.higher, weighted)
    scores[: layout.own] *= normal.root**2
    taken = normal.pixel_right * normal.root
    scores[: layout.own] -= np.einsum("oap,ap->op", normal.coupling, taken)
    off = (found.off_background, found.off_modulation)
    for place, one, scatter, light in zip(layout.light, off, spread.light, normal.light, strict=True):
        np.multiply(
            samples.fields,
            -(normal.root**2 * one / scatter**2 + np.einsum("ap,ap->p", light, taken)),
            out=scores[place],
        )
    return scores


def _sum_in_cells(scores: np.ndarray, y: np.ndarray, x: np.ndarray, number: int) -> np.ndarray:
    cell = np.zeros(len(y), np.intp)
    for coordinate in (y, x):
        part = (coordinate - coordinate.min()) * (number / max(float(np.ptp(coordinate)), 1e-12))
        cell = cell * number + np.minimum(part.astype(np.intp), number - 1)
    order = np.argsort(cell, kind="stable")
    starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
    return np.add.reduceat(scores[:, order], starts, axis=1)
