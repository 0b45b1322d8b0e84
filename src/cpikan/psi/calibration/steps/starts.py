"""Steps to start from: as given, or found blind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.calibration.steps.aia import estimate_steps
from cpikan.psi.calibration.steps.iterate import solve
from cpikan.psi.calibration.steps.layout import Layout
from cpikan.psi.calibration.steps.model import Samples

_EVEN_DEG = (90.0, 60.0, 120.0, 45.0, 72.0, 100.0, 30.0)
_GOOD_NOISE = 0.12  # of the modulation: a fit no worse than this is not a false minimum
_ITERATIONS = 6
_PIXELS = 900


@dataclass(frozen=True)
class Guess:
    """Steps (K,) in rad and tilts (K, 2) in rad at the rim."""

    steps_rad: np.ndarray
    tilt_rad: np.ndarray


def best_start(
    samples: Samples, start_rad: np.ndarray | None, guess: Guess | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Choose steps (K - 1,) and tilts (K - 1, 2) at the rim, in rad, of frames 1 .. K-1, where the joint fit begins.

    The steps given are tried first, then those guessed (such as from a carrier), then those of the advanced iterative
    algorithm; even steps only where none of these fits.
    """
    few = samples.some(np.unique(np.linspace(0, samples.pixels - 1, _PIXELS).astype(int)))
    layout = Layout(samples.frames, frozenset({"tilt"}), samples.fields.shape[0])
    tried: list[tuple[float, np.ndarray, np.ndarray]] = []
    none = np.zeros((samples.frames, 2))

    def attempt(steps: np.ndarray, tilt: np.ndarray) -> bool:
        try:
            found = solve(few, layout, layout.started(steps[1:], tilt[1:]), _ITERATIONS)
        except np.linalg.LinAlgError:
            return False
        theta = found.state.theta
        tried.append((found.cost, theta[layout.blocks["step"][:, 0]], theta[layout.blocks["tilt"]]))
        return samples.frames > 4 and found.spread.noise < _GOOD_NOISE

    if start_rad is not None:
        if samples.frames <= 4:  # too little is left over to prefer another start
            return start_rad[1:], none[1:]
        if attempt(start_rad, none):
            return tried[0][1:]
    if guess is not None and samples.frames <= 4:
        return guess.steps_rad[1:], guess.tilt_rad[1:]
    if guess is not None and attempt(guess.steps_rad, guess.tilt_rad):
        return tried[-1][1:]
    blind = np.radians(estimate_steps(samples.values[:, :: max(1, samples.pixels // 3000)], None).steps_deg)
    if attempt(blind, none):
        return tried[-1][1:]
    for step in _EVEN_DEG:
        if attempt(np.arange(samples.frames) * np.radians(step), none):
            break
    return min(tried, key=lambda one: one[0])[1:] if tried else (blind[1:], none[1:])
