"""What fine-tuning must not change: the answers that nothing in its losses speaks of."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from cpikan.images.features import FeatureSpec, PatchBatch, Prediction, predict
from cpikan.images.losses.base import PixelLoss


class Anchor(PixelLoss):
    """Mean square of the change of order_logit and log_variance from a copy of the ``network`` as it was, over valid pixels.

    Frames judge heights alone; without this the other two answers, which share layers with the height, would drift.
    """

    name: ClassVar[str] = "anchor"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, network: nn.Module, spec: FeatureSpec) -> None:
        self._network, self._spec = copy.deepcopy(network).eval().requires_grad_(False), spec

    def where(self, batch: PatchBatch) -> Tensor:
        """Choose valid pixels (N, h, w) bool."""
        return batch.planes.valid

    def value(self, prediction: Prediction, batch: PatchBatch, chosen: Tensor) -> Tensor:
        """Compute squared changes (N, h, w)."""
        with torch.no_grad():
            before = predict(self._network.to(batch.unit_nm.device), batch.planes, self._spec, batch.unit_nm)
        change = (prediction.order_logit - before.order_logit) ** 2
        return change + (prediction.log_variance - before.log_variance) ** 2
