"""Optimizers by name, and the rate of a step as a function of its number alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.images.training.config import OptimizerConfig
from cpikan.learning.methods.soap import SoapOptimizer


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Make AdamW (Loshchilov & Hutter, ICLR 2019) or SOAP (Vyas et al., 2024) on kernels flattened to matrices."""
    kept = list(parameters)
    if config.name == "soap":
        return SoapKernels(kept, config.rate)
    beta1, beta2 = config.betas
    return torch.optim.AdamW(kept, lr=config.rate, betas=(beta1, beta2), weight_decay=config.weight_decay)


def rate_at(config: OptimizerConfig, step: int, steps: int) -> float:
    """Compute the rate of step 0, 1, ... of ``steps``: linear warm-up, then constant or half a cosine to the final share."""
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return config.rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.rate
    share = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return config.rate * (config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * share)))


class SoapKernels(SoapOptimizer):
    """SOAP whose matrices are convolution kernels (out, in, h, w) seen as (out, in * h * w); others as they are.

    Complex parameters (spectral weights) are stepped as Adam steps them, as pairs of reals.
    """

    def _one(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        if parameter.is_complex():
            parameter, gradient = torch.view_as_real(parameter).flatten(), torch.view_as_real(gradient).flatten()
        elif parameter.ndim > 2:
            parameter, gradient = parameter.view(len(parameter), -1), gradient.reshape(len(parameter), -1)
        super()._one(parameter, gradient, group, state)
