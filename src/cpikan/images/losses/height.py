"""Distance of heights from the truth, in standard deviations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cpikan.images.batch import PatchBatch
from cpikan.images.features import Prediction
from cpikan.images.losses.base import OfRightOrder, pseudo_huber, residual_sigmas, right_order, total, zero_of
from cpikan.images.losses.options import positive


@dataclass(frozen=True)
class Height(OfRightOrder):
    """Pseudo-Huber of (prediction - truth) / sigma over pixels of right order: squares below ``delta``, then linear."""

    name: ClassVar[str] = "height"
    delta: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "delta")

    def sum(self, prediction: Prediction, batch: PatchBatch) -> Tensor:
        """Scalar float64."""
        if batch.truth_nm is None:
            return zero_of(prediction)
        chosen = right_order(batch)
        return total(pseudo_huber(residual_sigmas(prediction, batch, chosen), self.delta), chosen)
