"""Which orders of the guide are wrong, as a classification."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cpikan.images.batch import PatchBatch
from cpikan.images.features import Prediction
from cpikan.images.losses.base import PixelLoss, known, wrong_order
from cpikan.images.losses.options import positive


@dataclass(frozen=True)
class Orders(PixelLoss):
    """Cross-entropy of ``order_logit`` against |guide - truth| > half_wave / 2.

    Wrong orders are rare: one counts as much as ``rare`` right ones. The logit is shifted by log(rare) for it, so what the
    model learns to say stays the true log-odds (logit adjustment, Menon et al., ICLR 2021).
    """

    name: ClassVar[str] = "orders"
    rare: float = 10.0

    def __post_init__(self) -> None:
        positive(self, "rare")

    def where(self, batch: PatchBatch) -> Bool[Tensor, "n h w"]:
        """Choose known pixels (N, h, w) bool."""
        return known(batch)

    def weight(self, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Count known pixels, wrong ones ``rare`` times."""
        return known(batch).sum().double() + (self.rare - 1) * wrong_order(batch).sum().double()

    def value(self, prediction: Prediction, batch: PatchBatch, chosen: Bool[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """Compute weighted cross-entropies (N, h, w)."""
        wrong = wrong_order(batch).to(prediction.order_logit.dtype)
        logit = torch.where(chosen, prediction.order_logit, 0.0) + math.log(self.rare)
        entropy = binary_cross_entropy_with_logits(logit, wrong, reduction="none")
        return entropy * (1 + (self.rare - 1) * wrong)
