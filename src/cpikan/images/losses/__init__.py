"""Losses of image models: each a sum over pixels and the data it is of, so that batches may be split and joined."""

from __future__ import annotations

from cpikan.images.losses.base import AdaptiveLoss, Loss, PixelLoss, mean_loss
from cpikan.images.losses.kinds import LOSSES, build_losses

__all__ = ["LOSSES", "AdaptiveLoss", "Loss", "PixelLoss", "build_losses", "mean_loss"]
