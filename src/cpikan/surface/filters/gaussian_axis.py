"""The Gaussian of one axis, by its own weights or by way of nodes that lie as far apart as the Gaussian allows.

A Gaussian of variance s^2 is the convolution of two of variance s^2 / 2. The trapezoidal rule on nodes D apart does that
convolution with a relative error of 2 exp(-pi^2 s^2 / (2 D^2)) of every single weight: below 6e-9 for D <= s / 2 (Poisson's
summation; Trefethen and Weideman, SIAM Review 56, 385 (2014), section 5). All weights stay positive, so a mean of heights by
them is off by twice that share of the heights' range at most, whatever the mask.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

ALPHA = math.sqrt(math.log(2) / math.pi)  # half of a wave of the nesting index passes (ISO 16610-61)
_SIGMAS_PER_STEP = 2.0
_DIRECT_REACH = 8.0  # in sigmas: weights beyond are below 1.3e-14 of the largest
_NODE_REACH = 6.8  # pairs of pixels up to 7.2 sigmas apart meet at all nodes that matter to them
_NODE_PAD = 3.2


def sigma_px(nesting_px: float) -> float:
    """Give the standard deviation in pixels of the weighting function of a nesting index in pixels."""
    return ALPHA * nesting_px / math.sqrt(2 * math.pi)


class GaussianAxis:
    """Weights between the pixels of an axis and its nodes, which are the pixels themselves where ``step`` is 1.

    Weights between pixels are those of ``down`` (pixels to nodes) times those of ``up`` (nodes to pixels), up to a factor.
    """

    def __init__(self, length: int, nesting_px: float) -> None:
        sigma = sigma_px(nesting_px)
        self.length, self.unit = length, sigma
        self.step = max(1, int(sigma / _SIGMAS_PER_STEP))
        self._sigma = sigma / math.sqrt(2) if self.split else sigma
        self._reach = math.ceil((_NODE_REACH if self.split else _DIRECT_REACH) * sigma)
        pad = math.ceil(_NODE_PAD * sigma / self.step) if self.split else 0
        self._first = -pad * self.step
        self.nodes = -(-(length - 1) // self.step) + 1 + 2 * pad

    @property
    def split(self) -> bool:
        """Tell whether nodes are fewer than pixels."""
        return self.step > 1

    @property
    def block(self) -> int:
        """Give the number of pixels that are best taken at once: about as many as a pixel reaches."""
        return max(64, min(512, 2 * self._reach))

    def near(self, start: int, stop: int) -> tuple[int, int]:
        """Find the nodes [first, last) that pixels [start, stop) reach."""
        first = (start - self._reach - self._first) // self.step
        last = -(-(stop - 1 + self._reach - self._first) // self.step) + 1
        return max(0, first), min(self.nodes, last)

    def down(self, start: int, stop: int, power: int = 0) -> FloatArray | None:
        """Weigh pixels [start, stop) for the nodes near them, (nodes, pixels), times (pixel - node)^power; None for 1."""
        if not self.split:
            return None
        offset, weights = self._weights(start, stop)
        return weights * (-offset) ** power if power else weights

    def up(self, start: int, stop: int, power: int = 0) -> FloatArray:
        """Weigh the near nodes for pixels [start, stop), (nodes, pixels), times (node - pixel)^power in ``unit``."""
        offset, weights = self._weights(start, stop)
        return weights * offset**power if power else weights

    def _weights(self, start: int, stop: int) -> tuple[FloatArray, FloatArray]:
        first, last = self.near(start, stop)
        offset = self._first + self.step * np.arange(first, last)[:, None] - np.arange(start, stop)[None, :]
        return offset / self.unit, np.exp(-0.5 * (offset / self._sigma) ** 2)

    @cached_property
    def blocks(self) -> list[tuple[int, int]]:
        """Cut the pixels of the axis into blocks [start, stop)."""
        return [(start, min(start + self.block, self.length)) for start in range(0, self.length, self.block)]
