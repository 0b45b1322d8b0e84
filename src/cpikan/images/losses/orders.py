"""Which orders of the guide are wrong, as a classification."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cpikan.images.batch import PatchBatch
from cpikan.images.features import Prediction
from cpikan.images.losses.base import known, total, wrong_order, zero_of
from cpikan.images.losses.options import positive


@dataclass(frozen=True)
class Orders:
    """Cross-entropy of ``order_logit`` against |guide - truth| > half_wave / 2.

    Wrong orders are rare: one counts as much as ``rare`` right ones. The logit is shifted by log(rare) for it, so what the
    model learns to say stays the true log-odds (logit adjustment, Menon et al., ICLR 2021).
    """

    name: ClassVar[str] = "orders"
    needs: ClassVar[frozenset[str]] = frozenset({"truth"})
    rare: float = 10.0

    def __post_init__(self) -> None:
        positive(self, "rare")

    def weight(self, batch: PatchBatch) -> Tensor:
        """Known pixels, wrong ones ``rare`` times."""
        return known(batch).sum().double() + (self.rare - 1) * wrong_order(batch).sum().double()

    def sum(self, prediction: Prediction, batch: PatchBatch) -> Tensor:
        """Scalar float64."""
        if batch.truth_nm is None:
            return zero_of(prediction)
        chosen, wrong = known(batch), wrong_order(batch).to(prediction.order_logit.dtype)
        logit = torch.where(chosen, prediction.order_logit, 0.0) + math.log(self.rare)
        entropy = binary_cross_entropy_with_logits(logit, wrong, reduction="none")
        return total(entropy * (1 + (self.rare - 1) * wrong), chosen)
