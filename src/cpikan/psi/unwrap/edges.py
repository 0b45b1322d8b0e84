"""Steps between neighbours of a tile and what it costs to change them: the statistics behind the flow."""

from __future__ import annotations

import numpy as np
from numba import njit

from cpikan.psi.unwrap.phasor import box_sum, lag_products

_PER_TURN = np.float32(1 / (2 * np.pi))
_PRIOR = np.float32(0.1)  # share of the mean slope of the tile in a local slope of full coherence
_DEAREST, _CHEAPEST = np.float32(1000), np.float32(20)  # of one turn where all agrees, and in pure noise


@njit(cache=True, nogil=True)
def edge_costs(real: np.ndarray, imag: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order steps int32 along the edges of a tile, and the cost int32 of one turn up and of one down, per edge.

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
    for direction in range(2):
        dy, dx = direction, 1 - direction
        cosine, sine = lag_products(real, imag, dy, dx)
        modulus = np.empty((height, width), np.float32)
        for y in range(height):
            for x in range(width):
                modulus[y, x] = np.sqrt(cosine[y, x] * cosine[y, x] + sine[y, x] * sine[y, x])
        total = np.float64(0)
        mean_cosine, mean_sine = np.float64(0), np.float64(0)
        for y in range(height):
            for x in range(width):
                total += modulus[y, x]
                mean_cosine += cosine[y, x]
                mean_sine += sine[y, x]
        scale = 25 * _PRIOR / max(total, 1e-30)
        prior_cosine, prior_sine = np.float32(mean_cosine * scale), np.float32(mean_sine * scale)
        box_cosine, box_sine, box_modulus = box_sum(cosine, 1), box_sum(sine, 1), box_sum(modulus, 1)
        for y in range(height - dy):
            for x in range(width - dx):
                if not (valid[y, x] and valid[y + dy, x + dx]):
                    continue
                a, b = box_cosine[y, x], box_sine[y, x]
                slope = np.arctan2(b + prior_sine, a + prior_cosine)
                here = np.arctan2(imag[y, x], real[y, x])
                there = np.arctan2(imag[y + dy, x + dx], real[y + dy, x + dx])
                turns = (there - here - slope) * _PER_TURN
                step = -np.rint(turns)
                excess = 2 * (turns + step)
                agreement = (a * a + b * b) / max(box_modulus[y, x] * box_modulus[y, x], np.float32(1e-30))
                cost = _CHEAPEST + _DEAREST * min(agreement * modulus[y, x], np.float32(1))
                edge = direction * pixels + y * width + x
                steps[edge] = np.int32(step)
                rise[edge] = np.int32(cost * (1 + excess))
                fall[edge] = np.int32(cost * (1 - excess))
    return steps, rise, fall
