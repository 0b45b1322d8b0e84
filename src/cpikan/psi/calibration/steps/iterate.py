"""Gauss-Newton for frames and pixels together, with spreads and robust weights found on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.calibration.steps.model import Layout, Samples, State, evaluate, pixels_of
from cpikan.psi.calibration.steps.normal import Normal, Spread, assemble


@dataclass(frozen=True)
class Thresholds:
    """Limits of the iteration and of what counts as an outlier."""

    huber: float = 1.8  # times the root mean square misfit of a pixel
    far: float = 6.0  # dust and moved pixels: beyond it weights fall with the square
    # decrease of chi squared per parameter that the last step promises: it moves them by half their standard errors, and
    # the next would move them by less than a tenth of that (the steps shrink a hundredfold in chi squared near the minimum)
    settled: float = 0.2
    still: float = 0.1  # relative change of a variance
    largest_phase_rad: float = 0.7  # that a pixel moves in one step
    tries: int = 6  # of a step, each damped more


LIMITS = Thresholds()


@dataclass(frozen=True)
class Solution:
    """A fit of one layout: ``cost`` is minus twice the log likelihood per pixel, up to a constant."""

    layout: Layout
    state: State
    spread: Spread
    weight: np.ndarray
    normal: Normal
    iterations: int
    converged: bool
    cost: float

    def covariance(self) -> np.ndarray:
        """Compute the covariance of the parameters if what is left over were independent noise."""
        precision = self.normal.matrix + np.diag(self.layout.prior_precision())
        return np.linalg.pinv(precision, hermitian=True)


def start_state(samples: Samples, layout: Layout, theta: np.ndarray) -> State:
    """Find the pixels and smooth fields that go with the frames' parameters."""
    pixel = pixels_of(samples, layout, theta)
    theta = theta.copy()
    fields = samples.fields
    smooth = np.linalg.solve(fields @ fields.T, fields @ pixel[:2].T)
    theta[layout.own :] = smooth.T.ravel()
    return State(theta, pixel)


def first_spread(samples: Samples, layout: Layout, state: State) -> Spread:
    """Estimate the spreads as a plain least-squares fit leaves them."""
    found = evaluate(samples, layout, state)
    squares = np.median(found.squares(), axis=1)
    left = max(samples.frames - 3, 1)
    return _bounded(np.array([squares[0] / left, squares[1] / 0.45, squares[2] / 0.45]), samples.frames)


def iterate(
    samples: Samples, layout: Layout, state: State, spread: Spread, most: int, limits: Thresholds = LIMITS
) -> Solution:
    """Minimise over frames and pixels by damped Gauss-Newton steps, at most ``most`` of them."""
    prior, anchor = layout.prior_precision(), layout.neutral()
    found = evaluate(samples, layout, state)
    squares = found.squares()
    weight = _weights(squares, spread, samples.frames, limits)
    normal = assemble(samples, layout, state, found, spread, weight)
    damping, converged, used = 1e-6, False, 0
    while used < most and not converged:
        used += 1
        right = normal.right - prior * (state.theta - anchor)
        matrix = normal.matrix + np.diag(prior)
        promised = float(right @ np.linalg.solve(matrix + 1e-9 * np.diag(np.diag(matrix)), right))
        before = _cost(squares, spread, weight, state.theta - anchor, prior) * (1 + 1e-12)
        for _ in range(limits.tries):
            step = np.linalg.solve(matrix + np.diag(damping * np.diag(matrix) + 1e-9), right)
            trial = _moved(state, step, normal, limits.largest_phase_rad)
            found = evaluate(samples, layout, trial)
            squares = found.squares()
            if _cost(squares, spread, weight, trial.theta - anchor, prior) <= before:
                break
            damping = max(damping * 30, 1e-3)
        else:  # no step lowers the cost any more
            converged = True
            break
        state, damping = trial, max(damping / 30, 1e-9)
        fresh = _spread(squares, normal, spread, layout, samples.frames)
        still = np.abs(np.log(fresh.squares() / spread.squares())).max() < limits.still
        spread = fresh
        weight = _weights(squares, spread, samples.frames, limits)
        converged = bool(still and promised < limits.settled * layout.size)
        normal = assemble(samples, layout, state, found, spread, weight)
    logs = np.log(spread.squares())
    total = float((samples.frames - 3) * logs[0] + logs[1] + logs[2])
    return Solution(layout, state, spread, weight, normal, used, converged, total)


def solve(samples: Samples, layout: Layout, theta: np.ndarray, most: int, spread: Spread | None = None) -> Solution:
    """Minimise from parameters of the frames alone; ``spread`` where it is known from a fit of fewer pixels."""
    state = start_state(samples, layout, theta)
    return iterate(samples, layout, state, spread or first_spread(samples, layout, state), most)


def _moved(state: State, step: np.ndarray, normal: Normal, largest_rad: float) -> State:
    change = normal.pixel_step(step)
    change[2] = np.clip(change[2], -largest_rad, largest_rad)
    return State(state.theta + step, state.pixel + change)


def _cost(squares: np.ndarray, spread: Spread, weight: np.ndarray, off: np.ndarray, prior: np.ndarray) -> float:
    return float(weight @ (squares.T @ (1 / spread.squares())) + np.sum(prior * off**2))


def _weights(squares: np.ndarray, spread: Spread, frames: int, limits: Thresholds) -> np.ndarray:
    """Compute Huber weights of the pixels by their misfit; dust and pixels that moved count next to nothing."""
    misfit = np.sqrt(squares.T @ (1 / spread.squares()) / (frames - 1))
    misfit = np.maximum(misfit, 1e-12)
    return np.maximum(np.minimum(1.0, limits.huber / misfit) * np.minimum(1.0, (limits.far / misfit) ** 2), 1e-3)


def _spread(squares: np.ndarray, normal: Normal, spread: Spread, layout: Layout, frames: int) -> Spread:
    """Update the spreads by the fixed point of evidence: squares over the degrees of freedom each kind has left.

    Source: MacKay, Neural Computation 4, 415 (1992). A sum of squares of K + 2 observations has lost to the three unknowns
    of a pixel what their posterior variances say.
    """
    weight = normal.root**2
    total = squares @ weight
    held = (normal.shares() @ weight) / spread.squares()[1:]  # what the smooth fields decide, not the samples
    count = weight.sum()
    terms = layout.terms
    samples_left = (frames - 3) * count + held.sum() - layout.own
    freedom = np.array([samples_left, count - held[0] - terms, count - held[1] - terms])
    return _bounded(np.maximum(total, 1e-300) / np.maximum(freedom, 1e-3 * count), frames)


def _bounded(squares: np.ndarray, frames: int) -> Spread:
    """Bound the spreads: three frames leave no residual, so their noise is part of the scatter of the light."""
    noise, background, modulation = np.sqrt(squares)
    background, modulation = max(float(background), 1e-4), max(float(modulation), 1e-4)
    noise = 0.3 * min(background, modulation) if frames == 3 else max(float(noise), 1e-5)
    return Spread(noise, max(background, 0.3 * noise), max(modulation, 0.3 * noise))
