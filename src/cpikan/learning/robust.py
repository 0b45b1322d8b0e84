"""Losses of a residual: squares, and two that let outliers weigh less."""

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
class _Robust:
    """A loss that lets residuals beyond ``width``, in their own units, weigh less."""

    width: float

    def __post_init__(self) -> None:
        if not 0 < self.width < float("inf"):
            raise InputError(f"width {self.width} of a robust loss: give a positive number in units of the residual")


@dataclass(frozen=True)
class Huber(_Robust):
    """Squares up to ``width``, linear beyond (Huber 1964); 1.345 sigma keeps 95 % efficiency for normal noise."""

    def value(self, residuals: Tensor) -> Tensor:
        """Compute the loss elementwise."""
        size = residuals.abs()
        near = size.clamp(max=self.width)
        return near * (size - 0.5 * near)

    def weight(self, residuals: Tensor) -> Tensor:
        """Compute the weight elementwise, at most one."""
        return self.width / residuals.abs().clamp(min=self.width)


@dataclass(frozen=True)
class Cauchy(_Robust):
    """width^2 log(1 + (r / width)^2) / 2: outliers fade out altogether; not convex."""

    def value(self, residuals: Tensor) -> Tensor:
        """Compute the loss elementwise."""
        return 0.5 * self.width**2 * torch.log1p((residuals / self.width).square())

    def weight(self, residuals: Tensor) -> Tensor:
        """Compute the weight elementwise, at most one."""
        return 1 / (1 + (residuals / self.width).square())
