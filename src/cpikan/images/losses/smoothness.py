"""Total variation of heights that lets steps be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from cpikan.errors import InputError
from cpikan.images.features import PatchBatch, Prediction
from cpikan.images.losses.base import positive, zero_of


@dataclass(frozen=True)
class Smoothness:
    """Huber function of the height differences of neighbours in their standard deviations, constant from ``threshold`` on.

    Squares below ``delta`` (noise), total variation up to ``threshold``; beyond, a difference is a step and is not pulled at.
    Pairs with an invalid pixel are left out.
    """

    name: ClassVar[str] = "smoothness"
    needs: ClassVar[frozenset[str]] = frozenset()
    delta: float = 1.0
    threshold: float = 6.0

    def __post_init__(self) -> None:
        positive(self, "delta", "threshold")
        if self.threshold < self.delta:
            raise InputError(
                f"threshold {self.threshold!r} of the loss smoothness is below its delta {self.delta!r}: give a greater one"
            )

    def weight(self, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Count pairs of valid neighbours."""
        return torch.stack([(first & second).sum() for first, second in _pairs(batch.planes.valid)]).sum().double()

    def sum(self, prediction: Prediction, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Sum the Huber losses of all pairs of valid neighbours, scalar float64."""
        valid = batch.planes.valid
        height = torch.where(valid, prediction.height_nm, 0.0)
        variance = torch.where(valid, batch.planes.sigma_nm, 1.0) ** 2
        result = zero_of(prediction)
        for (h0, h1), (v0, v1), (a, b) in zip(_pairs(height), _pairs(variance), _pairs(valid), strict=True):
            difference = torch.where(a & b, (h1 - h0) / (v0 + v1).sqrt(), 0.0)
            difference = difference.clamp(-self.threshold, self.threshold)
            zeros = torch.zeros_like(difference)
            huber = torch.nn.functional.huber_loss(difference, zeros, reduction="none", delta=self.delta)
            result = result + huber.sum(dtype=torch.float64)
        return result


def _pairs(plane: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """List neighbours below and to the right (N, h, w)."""
    yield plane[:, :-1], plane[:, 1:]
    yield plane[:, :, :-1], plane[:, :, 1:]
