"""Fronts: where a function of one coordinate is sharp, by the maxima of its slope and of its bend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cpikan.fields.front_ckan import Front
from cpikan.learning.strategies.line_series import LineSeries

_SAMPLES = 33  # of an interval
_WIDE = 0.1  # of half the line: what is wider is smooth enough for a network as it is
_SHARP = 0.05  # the same of a line that is full of them, a wave: coordinates for some of its crests do not help
_SMALL = {1: 2e-2, 2: 3e-3}  # of the largest value: what a front, and a kink, changes by at least
_STEEP = 3.0  # times the slope, or bend, of what changes by its largest value over half of the line
_APART = 3.0  # widths between centres of two fronts
_SHARPER = 3.0  # times: a front narrower than one that is known by that factor is a new one
MOST = 6


def fronts_of(line: LineSeries, axis: int, most: int = MOST) -> list[Front]:
    """Find the sharpest fronts of a function, in the scaled coordinate of its line.

    At a maximum of |q|, q the slope or the bend, the width is that of exp(-(x / w)^2) with the same curvature there,
    w = sqrt(2 |q / q''|): for tanh(x / w) and its slope exactly w. Maxima of the bend beside a maximum of the slope belong to
    the same front; alone, they are kinks that have been rounded.
    """
    low, high = line.knots[0], line.knots[-1]
    size = np.abs(line.derivatives(0, _SAMPLES)).max(axis=(0, 1))
    found: list[Front] = []
    for order in (1, 2):
        here = []
        q, curve = line.derivatives(order, _SAMPLES), line.derivatives(order + 2, _SAMPLES)
        for output in range(q.shape[2]):
            here += _peaks(line.places(_SAMPLES), q[..., output], curve[..., output], order, size[output])
        scaled = [(2 * (x - low) / (high - low) - 1, 2 * w / (high - low)) for x, w in here]
        sharp = sorted((w, centre) for centre, w in scaled if w < _WIDE)
        for width, centre in sharp:
            if not any(abs(centre - one.centre) < _APART * max(width, one.width) for one in found):
                found.append(Front(axis, float(np.clip(centre, -1, 1)), float(width)))
    if len(found) > most:
        found = [one for one in found if one.width < _SHARP]
    return sorted(found, key=lambda one: one.width)[:most]


def merged(known: Sequence[Front], seen: Sequence[Front], most: int = MOST) -> tuple[Front, ...]:
    """Add to the fronts that are known those that are elsewhere or far sharper; equal to ``known`` where none is.

    A known front about as wide, not more than a width of the wider one away, stands for one that is seen; a sharper one
    takes the place of the known one at its centre.
    """
    found = list(known)
    for one in sorted(seen, key=lambda front: front.width):
        near = [k for k in found if k.axis == one.axis and abs(k.centre - one.centre) <= max(k.width, one.width)]
        if any(k.width <= _SHARPER * one.width for k in near):
            continue
        found = [k for k in found if k not in near] + [one]
    kept = sorted(found, key=lambda one: one.width)[:most]
    return tuple(known) if set(kept) == set(known) else tuple(kept)


def _peaks(x: np.ndarray, q: np.ndarray, curve: np.ndarray, order: int, size: float) -> list[tuple[float, float]]:
    """List the places and widths of the maxima of |q| (K, samples), ends of the line included."""
    places, values, bends = x.ravel(), np.abs(q).ravel(), (curve * np.sign(q)).ravel()
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    top = (values >= padded[:-2]) & (values >= padded[2:]) & (bends < 0)
    steep = _STEEP * size * (2 / (places[-1] - places[0])) ** order
    found, last = [], -np.inf
    for number in np.flatnonzero(top):
        width = float(np.sqrt(-2 * values[number] / bends[number]))
        large = values[number] > steep and values[number] * width**order > _SMALL[order] * size
        if large and places[number] - last > 1e-9 * (places[-1] - places[0]):
            found.append((float(places[number]), width))
            last = places[number]
    return found
