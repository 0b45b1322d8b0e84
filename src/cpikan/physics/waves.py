"""Waves: how fast what is known of a problem, its sources and its data on walls, oscillates along the axes of a box."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.leading import bare
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box

Wave = tuple[int, float]  # an axis, and how many waves there are from one end of the box to the other

_FEWEST = 3.5  # waves along an axis: a network of the coordinates learns fewer by itself
_MOST = 3  # of different lengths along an axis
_LINES, _PLACES = 24, 512  # where data are looked at: lines along an axis, and places of each
_STRONG, _BESIDE = 0.3, 0.02  # of the power along an axis: what a wave has, and what others have beside one
_APART = 2.0  # waves: nearer than that two lengths, as those of a packet in source and values, are one
_REACH = 3  # places of the spectrum to both sides of a wave that the window spreads it to
_STANDS_OUT = 10.0  # times the power two places farther on: what falls off slowly, as that of a step does, is no wave
_NEAR_HALF = 0.03  # waves: this near to a whole number of half waves they are as many


def known_waves(problem: Problem) -> tuple[Wave, ...]:
    """Find the waves in the data of a problem on a box, up to three for each axis, the strongest first.

    Looked at are the equation's residual and those of the conditions where u = 0, along lines through the box and on its walls:
    their power spectrum behind a Blackman window. Where the strongest peak of it has at least 0.3 of the power that a source
    has along that axis, this and others from 0.02 on are waves, from 3.5 between the ends on. The place of a peak is refined
    by a parabola through the logarithm, and taken for a whole number of half waves where it is near one. Empty for other
    regions, and for problems with unknown coefficients.
    """
    region = problem.region
    if not isinstance(region, Box) or problem.unknowns or problem.constants:
        return ()
    found: list[Wave] = []
    for axis in range(problem.dimension):
        powers: dict[float, float] = {}
        for values in _along(problem, region, axis):
            for waves, share in _peaks(values):
                powers[waves] = max(share, powers.get(waves, 0.0))
        kept: list[float] = []
        for waves in sorted(powers, key=lambda one: -powers[one]):
            if len(kept) < _MOST and all(abs(waves - one) > _APART for one in kept):
                kept.append(waves)
        found += [(axis, waves) for waves in kept]
    return tuple(found)


@torch.no_grad()
def _along(problem: Problem, region: Box, axis: int) -> Iterator[np.ndarray]:
    """Evaluate every source on lines along an axis, (lines, places) each.

    Left out are those that are not finite, and residuals of a wrong shape, of which a solve tells.
    """
    points = _lines(region, axis, None)
    try:
        found = list(problem.interior(_nothing(problem, points), points).values())
    except ArithmeticError:  # an equation that has no value where u = 0
        found = []
    for on_wall, condition, normal in _wall_lines(problem, region, axis):
        found.append(condition.residual(_nothing(problem, on_wall), Side(on_wall, normal.expand(len(on_wall), -1))))
    for source in found:
        if source.shape in ((), points.shape[:1]):
            values = source.expand(len(points)).reshape(-1, _PLACES).numpy()
            if np.isfinite(values).all():
                yield values


def _wall_lines(problem: Problem, region: Box, axis: int) -> Iterator[tuple[Tensor, Condition, Tensor]]:
    """Lay lines on the walls that conditions are on, where these run along an axis; with the outward normal."""
    for condition in problem.conditions:
        if condition.at is not None or condition.period is not None or condition.second != "none":
            continue
        for part in region.walls if condition.on is None else condition.on:
            if part in region.inner or region.side(part)[0] == axis:
                continue
            across, end = region.side(part)
            normal = torch.zeros(problem.dimension, dtype=torch.float64)
            normal[across] = 2.0 * end - 1
            yield _lines(region, axis, (across, end)), condition, normal


def _lines(region: Box, axis: int, wall: tuple[int, int] | None) -> Tensor:
    """Place points on lines along an axis, through the box or on a wall of it, (lines * places, d)."""
    shares = np.random.default_rng([17, axis]).random((_LINES, 1, len(region.lower)))
    if wall is not None:
        shares[..., wall[0]] = float(wall[1])
    shares = np.broadcast_to(shares, (_LINES, _PLACES, len(region.lower))).copy()
    shares[..., axis] = (np.arange(_PLACES) + 0.5) / _PLACES
    low, high = np.asarray(region.lower), np.asarray(region.upper)
    return torch.from_numpy((low + shares * (high - low)).reshape(-1, len(low)))


def _nothing(problem: Problem, points: Tensor) -> Jet:
    """Make the jet of u = 0."""
    value = points.new_zeros(len(points), problem.outputs)
    jet = Jet(value, value.new_zeros(*value.shape, problem.dimension), value)
    if problem.second == "full":
        return jet._replace(second=value.new_zeros(*value.shape, problem.dimension, problem.dimension))
    return bare(jet, problem)


def _peaks(values: np.ndarray) -> Sequence[tuple[float, float]]:
    """Find the waves of lines (lines, places) with their shares of the power, the strongest first."""
    window = np.blackman(_PLACES + 2)[1:-1]
    mean = (values * window).sum(axis=1, keepdims=True) / window.sum()
    power = np.square(np.abs(np.fft.rfft((values - mean) * window, axis=1))).sum(axis=0)
    total, left = float(power.sum()), power.copy()
    found: list[tuple[float, float]] = []
    least = _STRONG
    while total > 0 and len(found) < _MOST:
        top = int(left.argmax())
        near = slice(max(top - _REACH, 0), top + _REACH + 1)
        share = float(left[near].sum()) / total
        if share < least or not left[top] > 0:
            break
        least, left[near] = _BESIDE, 0.0
        waves = _refined(power, top)
        if waves >= _FEWEST and _stands_out(power, top):
            found.append((waves, share))
    return found


def _stands_out(power: np.ndarray, top: int) -> bool:
    """Tell whether a place of a spectrum is a peak by itself, not the flank of another one."""
    beside = [power[place] for place in (top - _REACH - 2, top + _REACH + 2) if 0 <= place < len(power)]
    highest = power[max(top - 1, 0) : top + 2].max() <= power[top]
    return bool(highest and power[top] > _STANDS_OUT * max(beside))


def _refined(power: np.ndarray, top: int) -> float:
    """Refine the place of a peak, and take it for a whole number of half waves where it is near one."""
    if not 0 < top < len(power) - 1:
        return float(top)
    low, at, high = np.log(power[top - 1 : top + 2] + 1e-300)
    bend = low - 2 * at + high
    waves = top + (0.5 * (low - high) / bend if bend < 0 else 0.0)
    half = round(2 * waves) / 2
    return half if math.isclose(waves, half, abs_tol=_NEAR_HALF) else float(waves)
