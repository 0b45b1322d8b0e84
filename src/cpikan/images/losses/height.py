"""Distance of heights from the truth, in standard deviations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from cpikan.images.batch import PatchBatch
from cpikan.images.features import Prediction
from cpikan.images.losses.base import PixelLoss, pseudo_huber, residual_sigmas
from cpikan.images.losses.options import positive


@dataclass(frozen=True)
class Height(PixelLoss):
    """Pseudo-Huber of (prediction - truth) / sigma over pixels of right order: squares below ``delta``, then linear."""

    name: ClassVar[str] = "height"
    delta: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "delta")

    def value(self, prediction: Prediction, batch: PatchBatch, chosen: Bool[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """Compute the pseudo-Huber function of the residuals (N, h, w)."""
        return pseudo_huber(residual_sigmas(prediction, batch, chosen), self.delta)
