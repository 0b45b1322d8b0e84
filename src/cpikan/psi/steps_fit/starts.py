"""Steps to start from: as given, or found blind."""

from __future__ import annotations

import numpy as np

from cpikan.psi.aia import estimate_steps
from cpikan.psi.steps_fit.iterate import solve
from cpikan.psi.steps_fit.layout import Layout
from cpikan.psi.steps_fit.model import Samples

_EVEN_DEG = (90.0, 60.0, 120.0, 45.0, 72.0, 100.0, 30.0)
_GOOD_NOISE = 0.12  # of the modulation: a fit no worse than this is not a false minimum
_ITERATIONS = 6
_PIXELS = 900


def best_start(samples: Samples, start_rad: np.ndarray | None) -> np.ndarray:
    """Steps in rad of frames 1 .. K-1 from which the joint fit finds the deepest minimum.

    The steps given are tried first, then those of the advanced iterative algorithm; even steps only where neither fits.
    """
    few = samples.some(np.unique(np.linspace(0, samples.pixels - 1, _PIXELS).astype(int)))
    layout = Layout(samples.frames, frozenset({"tilt"}), samples.fields.shape[0])
    tried: list[tuple[float, np.ndarray]] = []

    def attempt(steps: np.ndarray) -> bool:
        theta = layout.neutral()
        theta[layout.indices("step")] = steps[1:]
        try:
            found = solve(few, layout, theta, _ITERATIONS)
        except np.linalg.LinAlgError:
            return False
        tried.append((found.cost, found.state.theta[layout.indices("step")]))
        return samples.frames > 4 and found.spread.noise < _GOOD_NOISE

    if start_rad is not None:
        if samples.frames <= 4:  # too little is left over to prefer another start
            return start_rad[1:]
        if attempt(start_rad):
            return tried[0][1]
    blind = np.radians(estimate_steps(samples.values[:, :: max(1, samples.pixels // 3000)], None).steps_deg)
    if attempt(blind):
        return tried[-1][1]
    for step in _EVEN_DEG:
        if attempt(np.arange(samples.frames) * np.radians(step)):
            break
    return min(tried, key=lambda one: one[0])[1] if tried else blind[1:]
