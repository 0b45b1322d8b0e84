"""Likelihood of the truth under what the model says of height and variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cpikan.errors import InputError
from cpikan.images.batch import PatchBatch
from cpikan.images.features import Prediction
from cpikan.images.losses.base import PixelLoss, residual_sigmas
from cpikan.images.losses.options import not_negative, positive

LOG_VARIANCE_LIMIT = 12.0  # exp(12) sigmas squared: 400 sigmas, and a 400th of one


@dataclass(frozen=True)
class Supervised(PixelLoss):
    """Beta-weighted negative log-likelihood of (prediction - truth) / sigma over pixels of right order.

    With the variance v that the model says and z = residual / sqrt(v): v^beta (rho(z) + log(v) / 2), the factor not
    differentiated, rho a Huber function. ``beta`` 0 is the likelihood, which neglects pixels once it has called them uncertain;
    1 is the squared error for the height (Seitzer et al., ICLR 2022, eq. 4). ``huber`` is where rho turns linear: at 3 the
    variance of Gaussian errors is found 0.3 % too small.
    """

    name: ClassVar[str] = "supervised"
    beta: float = 0.5
    huber: float = 3.0

    def __post_init__(self) -> None:
        not_negative(self, "beta")
        positive(self, "huber")
        if self.beta > 1:
            raise InputError(f"beta {self.beta!r} of the loss supervised: give a number from 0 to 1")

    def value(self, prediction: Prediction, batch: PatchBatch, chosen: Bool[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """Compute weighted negative log-likelihoods (N, h, w)."""
        log_variance = clamped(prediction.log_variance, chosen)
        scaled = residual_sigmas(prediction, batch, chosen) * (-log_variance / 2).exp()
        core = torch.nn.functional.huber_loss(scaled, torch.zeros_like(scaled), reduction="none", delta=self.huber)
        factor = (self.beta * log_variance.detach()).exp()
        return factor * (core + log_variance / 2)


@dataclass(frozen=True)
class Calibration(PixelLoss):
    """Negative log-likelihood for the variance alone: heights feel nothing of it, so it may follow any other loss.

    Its least value is where exp(log_variance) is the mean square of (prediction - truth) / sigma, over pixels of right order;
    then 1.96 of the sigmas so predicted cover 95 % of Gaussian errors.
    """

    name: ClassVar[str] = "calibration"

    def value(self, prediction: Prediction, batch: PatchBatch, chosen: Bool[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """Compute negative log-likelihoods (N, h, w)."""
        log_variance = clamped(prediction.log_variance, chosen)
        square = residual_sigmas(prediction, batch, chosen).detach() ** 2
        return (log_variance + square * (-log_variance).exp()) / 2


def clamped(log_variance: Tensor, chosen: Tensor) -> Tensor:
    """Clamp log-variances so that their exponentials neither overflow nor vanish; zero where not chosen."""
    return torch.where(chosen, log_variance, 0.0).clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
