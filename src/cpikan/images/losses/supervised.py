"""Losses that need the truth: of heights at one or more resolutions, of wrong orders, of height and variance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

from cpikan.errors import InputError
from cpikan.images.features import PatchBatch, Prediction
from cpikan.images.losses.base import (
    PixelLoss,
    is_number,
    known,
    not_negative,
    positive,
    pseudo_huber,
    residual_sigmas,
    right_order,
    wrong_order,
    zero_of,
)


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
