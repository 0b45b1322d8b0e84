"""Height error at several resolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cpikan.errors import InputError
from cpikan.images.batch import PatchBatch
from cpikan.images.features import Prediction
from cpikan.images.losses.base import pseudo_huber, residual_sigmas, right_order, zero_of
from cpikan.images.losses.options import is_number, positive

BLOCKS = {3: (4, 2, 1), 2: (4, 1)}  # sides of the blocks in pixels, by the number of levels


@dataclass(frozen=True)
class Multiscale:
    """Sum over levels of w L, with ``levels`` = [w_low, w_mid, w_high] at 1/4, 1/2 and 1, or [w_low, w_high] at 1/4 and 1.

    At each level the residual in sigmas is low-passed before it is decimated: means over the pixels of right order in blocks.
    A block counts as many times as it has pixels, so each level is a mean over the same pixels whatever its size.
    """

    name: ClassVar[str] = "multiscale"
    needs: ClassVar[frozenset[str]] = frozenset({"truth"})
    levels: tuple[float, ...] = (0.25, 0.25, 0.5)
    delta: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "delta")
        levels = tuple(self.levels) if isinstance(self.levels, list | tuple) else ()
        if len(levels) not in BLOCKS or not all(is_number(w) and w >= 0 for w in levels) or not any(levels):
            raise InputError(
                f"levels {self.levels!r} of the loss multiscale: give [w_low, w_mid, w_high] (1/4, 1/2, 1) or "
                "[w_low, w_high] (1/4, 1), none below zero, one above"
            )
        object.__setattr__(self, "levels", levels)

    def weight(self, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Count the pixels of right order."""
        return right_order(batch).sum().double()

    def sum(self, prediction: Prediction, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Sum the weighted losses of all block means, scalar float64."""
        if batch.truth_nm is None:
            return zero_of(prediction)
        chosen = right_order(batch)
        residual = residual_sigmas(prediction, batch, chosen)
        result = zero_of(prediction)
        for weight, block in zip(self.levels, BLOCKS[len(self.levels)], strict=True):
            sums, counts = (_block_sums(plane.to(residual.dtype), block) for plane in (residual, chosen))
            means = sums / counts.clamp_min(1)
            result = result + weight * (counts * pseudo_huber(means, self.delta)).sum(dtype=torch.float64)
        return result


def _block_sums(plane: Tensor, block: int) -> Tensor:
    """Add up blocks (N, ceil(h / block), ceil(w / block)); blocks at the far rims may be narrower."""
    short = [-side % block for side in plane.shape[-2:]]
    padded = torch.nn.functional.pad(plane, (0, short[1], 0, short[0]))
    return avg_pool2d(padded[:, None], block, divisor_override=1)[:, 0]
