"""Selection of the effects that the frames show: backward elimination on one fit of all of them."""

from __future__ import annotations

import math

import numpy as np

from cpikan.psi.calibration.steps.layout import EFFECTS, PRIOR, Effect, Layout

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
