"""What the sigma of a network knows beside the noise of single pixels: what neighbours share does not average out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_CLEAR = 1.1  # a factor of averages below which it may be chance


@dataclass(frozen=True)
class SigmaScale:
    """``systematic`` is the share of the pixels' variance that is no noise, ``averages`` how much larger than sigma / k the
    standard deviation of the mean of k x k pixels is, by k, and ``factor`` what a network's own sigma was found too small
    by."""

    systematic: float = 0.0
    averages: tuple[tuple[float, float], ...] = ()
    factor: float = 1.0

    @classmethod
    def of(
        cls,
        known: Sequence[tuple[float, float]],
        noise_rad: float,
        systematic: float,
        averages: Mapping[int, float] | None,
    ) -> SigmaScale:
        """Take the factor at a phase noise from pairs ``known`` of noise and factor, linear between them."""
        pairs = np.array(sorted(known) or [(0.0, 1.0)], float)
        factor = float(np.interp(noise_rad, pairs[:, 0], pairs[:, 1]))
        clear = {float(side): float(value) for side, value in (averages or {}).items() if value > _CLEAR}
        return cls(systematic, tuple(sorted(clear.items())), factor)

    def sigma(self, relative: Tensor, sigma: Tensor) -> Tensor:
        """Compute the sigma of heights whose noise a network made ``relative`` times that of single pixels, ``sigma``.

        A network that leaves a k-th of the noise averages over some k x k pixels.
        """
        noise = relative * self.factor
        if self.averages:
            sides, factors = (
                torch.tensor(part, dtype=relative.dtype) for part in zip((1.0, 1.0), *self.averages, strict=True)
            )
            noise = torch.minimum(noise * _between(1 / relative, sides, factors), noise.clamp_min(1.0))
        return sigma * (noise.square() * (1 - self.systematic) + self.systematic).sqrt()


PLAIN = SigmaScale()


def _between(x: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly between values at rising places; constant beyond both ends."""
    at, values = at.to(x.device), values.to(x.device)
    upper = torch.searchsorted(at, x.contiguous()).clamp(1, len(at) - 1)
    share = ((x - at[upper - 1]) / (at[upper] - at[upper - 1])).clamp(0, 1)
    return values[upper - 1] + share * (values[upper] - values[upper - 1])
