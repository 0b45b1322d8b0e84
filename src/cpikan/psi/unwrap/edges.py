"""Steps between neighbours of a tile and what it costs to change them: the statistics behind the flow."""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.kernels.cpu_phasors import fill_phase_cycles
from cpikan.psi.unwrap.phasor import box_sum, lag_products

_PRIOR = np.float32(0.1)  # share of the mean slope of the tile in a local slope of full coherence
_DEAREST, _CHEAPEST = np.float32(1000), np.float32(20)  # of one turn where all agrees, and in pure noise


@compiled
def edge_costs(real: np.ndarray, imag: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute order steps int32 along the edges of a tile, and the cost int32 of one turn up and one down, per edge.

    Edge y * w + x leads from pixel (y, x) to its right neighbour, edge h * w + y * w + x to the one below.
    The phasors (h, w) have the coherence as modulus. Each step is the one nearest to the local slope, which is
    averaged over 5 x 5 pixels and drawn a little to the mean of the tile, so that noise has no slope of its own. Where
    the step departs from the slope by r turns, one more turn costs C (1 + 2 r) and one less C (1 - 2 r), the
    difference of squares (r +- 1)^2 - r^2, with C by the coherence of the pixels and of the slope (the costs of SNAPHU:
    Chen, Zebker, JOSA A 18, 338 (2001); but linear from there on, so that a fault of many turns stays cheap).
    """
    height, width = real.shape
    pixels = height * width
    steps = np.zeros(2 * pixels, np.int32)
    rise, fall = np.zeros(2 * pixels, np.int32), np.zeros(2 * pixels, np.int32)
    turns = np.empty((height, width), np.float32)
    for y in range(height):
        fill_phase_cycles(real[y], imag[y], turns[y], width)
    slope, next_pixel = np.empty(width, np.float32), np.intp(1)  # no literal: `box_sum` would be compiled once more
    for direction in range(2):
        dy, dx = direction, 1 - direction
        cosine, sine = lag_products(real, imag, dy, dx)
        modulus = np.empty((height, width), np.float32)
        mean_cosine, mean_sine, total = _means(cosine, sine, modulus)
        scale = 25 * _PRIOR / max(total, 1e-30)
        prior_cosine, prior_sine = np.float32(mean_cosine * scale), np.float32(mean_sine * scale)
        box_cosine, box_sine = box_sum(cosine, next_pixel), box_sum(sine, next_pixel)
        box_modulus = box_sum(modulus, next_pixel)
        for y in range(height - dy):
            first = direction * pixels + y * width
            row = slice(first, first + width - dx)
            _agreement_row(box_cosine[y], box_sine[y], box_modulus[y], modulus[y])
            _shift(box_cosine[y], prior_cosine)
            _shift(box_sine[y], prior_sine)
            fill_phase_cycles(box_cosine[y], box_sine[y], slope, width)
            both = valid[y, : width - dx] & valid[y + dy, dx:]
            _cost_row(turns[y], turns[y + dy, dx:], slope, modulus[y], both, (steps[row], rise[row], fall[row]))
    return steps, rise, fall


@compiled
def _means(cosine: np.ndarray, sine: np.ndarray, modulus: np.ndarray) -> tuple[float, float, float]:
    """Fill the modulus of the products; sums of all three."""
    width = modulus.shape[1]
    sums = np.zeros((3, width))
    for y in range(modulus.shape[0]):
        a, b, size = cosine[y], sine[y], modulus[y]
        for x in range(width):
            size[x] = np.sqrt(a[x] * a[x] + b[x] * b[x])
            sums[0, x] += a[x]
            sums[1, x] += b[x]
            sums[2, x] += size[x]
    return sums[0].sum(), sums[1].sum(), sums[2].sum()


@compiled(error_model="numpy")
def _agreement_row(a: np.ndarray, b: np.ndarray, total: np.ndarray, modulus: np.ndarray) -> None:
    """Multiply the modulus by how far the products around agree, at most 1."""
    for x in range(modulus.size):
        size = max(total[x] * total[x], np.float32(1e-30))
        modulus[x] = min((a[x] * a[x] + b[x] * b[x]) / size * modulus[x], np.float32(1))


@compiled
def _shift(row: np.ndarray, more: np.float32) -> None:
    for x in range(row.size):
        row[x] += more


@compiled
def _cost_row(
    here: np.ndarray,
    there: np.ndarray,
    slope: np.ndarray,
    agreement: np.ndarray,
    valid: np.ndarray,
    out: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Compute steps, and what one turn up and down costs; angles and slopes in turns."""
    steps, rise, fall = out
    for x in range(steps.size):
        away = there[x] - here[x] - slope[x]
        step = -np.rint(away)
        excess = np.float32(2) * (away + step)
        cost = _CHEAPEST + _DEAREST * agreement[x] if valid[x] else np.float32(0)
        steps[x] = np.int32(step) if valid[x] else np.int32(0)
        rise[x] = np.int32(cost * (np.float32(1) + excess))
        fall[x] = np.int32(cost * (np.float32(1) - excess))
