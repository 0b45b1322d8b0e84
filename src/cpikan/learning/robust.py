"""Losses of a residual: squares, and one that lets outliers weigh less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cpikan.errors import InputError


class Loss(Protocol):
    """rho(r) with rho(r) = r^2 / 2 near zero, and the weight rho'(r) / r of iteratively reweighted least squares."""

    def value(self, residuals: Tensor) -> Tensor: ...

    def weight(self, residuals: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Squares:
    """r^2 / 2: the maximum likelihood for normal noise."""

    def value(self, residuals: Tensor) -> Tensor:
        """Compute the loss elementwise."""
        return 0.5 * residuals * residuals

    def weight(self, residuals: Tensor) -> Tensor:
        """Return the weight elementwise, one."""
        return torch.ones_like(residuals)


SQUARES = Squares()


@dataclass(frozen=True)
class Huber:
    """Squares up to ``width``, linear beyond (Huber 1964); 1.345 sigma keeps 95 % efficiency for normal noise."""

    width: float

    def __post_init__(self) -> None:
        if not 0 < self.width < float("inf"):
            raise InputError(f"width {self.width} of a robust loss: give a positive number in units of the residual")

    def value(self, residuals: Tensor) -> Tensor:
        """Compute the loss elementwise."""
        size = residuals.abs()
        near = size.clamp(max=self.width)
        return near * (size - 0.5 * near)

    def weight(self, residuals: Tensor) -> Tensor:
        """Compute the weight elementwise, at most one."""
        return self.width / residuals.abs().clamp(min=self.width)
