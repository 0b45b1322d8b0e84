"""Gradient descent: plain steps against the direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from cpikan.learning.methods.adam import FirstOrder


@dataclass(frozen=True)
class GradientDescent(FirstOrder):
    """Gradient descent on all points, without a memory: what a direction promises holds for its steps."""

    name: str = "gradient descent"
    momentum: ClassVar[bool] = False

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make plain gradient descent."""
        return torch.optim.SGD(parameters, lr=self.rate)
