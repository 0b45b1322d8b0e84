"""Selection of the effects that the frames show, and the uncertainty of what is fitted, with residuals that are not white."""

from __future__ import annotations

import math

import numpy as np

from cpikan.psi.calibration.steps.iterate import Solution
from cpikan.psi.calibration.steps.model import EFFECTS, PRIOR, Effect, Layout, Samples, evaluate

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


_FEW_FRAMES = 4
STRONG = 10.0  # per parameter, in chi squared: what gains must explain where few frames let them pass for steps
_OPEN = 0.5  # of its weak prior: a parameter no better known than this is not determined by the data


def select(
    layout: Layout, theta: np.ndarray, covariance: np.ndarray, samples: int, kept: frozenset[Effect]
) -> tuple[Layout, np.ndarray, dict[str, str]]:
    """Drop the effects that the data need least, one after the other; never those ``kept``.

    All that remain lower chi squared by more than their parameters times log n (Schwarz, Ann. Stat. 6, 461 (1978)).
    Gains of three or four frames are told from steps by smooth light alone, and must explain more.

    Dropping a group of parameters conditions the normal distribution on its neutral value, so no fit is repeated. Returns the
    layout, the parameters, and why each missing effect is missing.
    """
    why: dict[str, str] = {}
    while True:
        gains: dict[Effect, float] = {}
        for effect in EFFECTS:
            if effect in layout.effects and effect not in kept:
                gains[effect] = _gain(layout, theta, covariance, effect, samples)
        if not gains or min(gains.values()) > 0:
            return layout, theta, why
        worst = min(gains, key=lambda effect: gains[effect])
        why[worst] = _reason(layout, theta, covariance, worst)
        layout, theta, covariance = _drop(layout, theta, covariance, worst)


def _gain(layout: Layout, theta: np.ndarray, covariance: np.ndarray, effect: Effect, samples: int) -> float:
    at = layout.blocks[effect].ravel()
    off = theta[at] - layout.neutral()[at]
    needed = math.log(samples) + (STRONG if effect in ("gain", "contrast") and layout.frames <= _FEW_FRAMES else 0.0)
    return float(off @ np.linalg.solve(covariance[np.ix_(at, at)], off)) / len(at) - needed


def _reason(layout: Layout, theta: np.ndarray, covariance: np.ndarray, effect: Effect) -> str:
    at = layout.blocks[effect].ravel()
    largest = float(np.abs(theta[at] - layout.neutral()[at]).max())
    error = float(np.sqrt(np.diag(covariance)[at]).max())
    if error > _OPEN * PRIOR[effect]:
        return f"not determined by these frames (standard error {error:.2g})"
    return f"not significant (at most {largest:.2g}, standard error {error:.2g})"


def _drop(
    layout: Layout, theta: np.ndarray, covariance: np.ndarray, effect: Effect
) -> tuple[Layout, np.ndarray, np.ndarray]:
    at = layout.blocks[effect].ravel()
    rest = np.setdiff1d(np.arange(layout.size), at)
    mixed = covariance[np.ix_(rest, at)]
    pull = np.linalg.solve(covariance[np.ix_(at, at)], np.column_stack([theta[at] - layout.neutral()[at], mixed.T]))
    return (
        layout.without(effect),
        theta[rest] - mixed @ pull[:, 0],
        covariance[np.ix_(rest, rest)] - mixed @ pull[:, 1:],
    )
