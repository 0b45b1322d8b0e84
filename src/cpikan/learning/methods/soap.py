"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for matrices of coefficients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.methods.adam import FirstOrder

_LARGEST = 2048  # a side that is longer keeps its own axes: its basis would cost more than the step


@dataclass(frozen=True)
class Soap(FirstOrder):
    """SOAP on all points; ``frequency`` is the number of steps between two bases.

    Vyas, Morwani, Zhao, Shapira, Brandfonbrener, Janson and Kakade, SOAP: Improving and Stabilizing Shampoo using Adam
    (2024), algorithm 3.
    """

    rate: float = 3e-3
    frequency: int = 10
    name: str = "soap"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frequency < 1:
            raise InputError(f"a basis every {self.frequency} steps: give at least 1")

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make SOAP."""
        return SoapOptimizer(parameters, self.rate, self.frequency)


class SoapOptimizer(torch.optim.Optimizer):
    """SOAP for parameters of two axes (the last two, of one network), Adam for all others.

    For a gradient G (m, n): L and R are running means of GG' and G'G, their eigenvectors Q_L and Q_R are refreshed by one
    step of power iteration and QR every ``frequency`` steps, and the step is Q_L N Q_R' with N Adam's step of Q_L' G Q_R. The
    first gradient only sets the bases, as in the authors' program.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 3e-3,
        frequency: int = 10,
        betas: tuple[float, float, float] = (0.95, 0.95, 0.95),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "frequency": frequency, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step from the present gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._one(parameter, parameter.grad, group, self.state[parameter])

    def _one(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        beta1, beta2, beta3 = group["betas"]
        matrix = gradient.ndim == 2
        if not state:
            state.update(count=0, first=torch.zeros_like(gradient), second=torch.zeros_like(gradient))
            if matrix:
                for side, size in zip(("left", "right"), gradient.shape, strict=True):
                    if size <= _LARGEST:
                        mean = (1 - beta3) * _square(gradient, side)
                        state[side] = mean
                        state[f"{side} basis"] = torch.linalg.eigh(mean)[1].flip(-1).contiguous()
                return
        state["count"] += 1
        state["first"].lerp_(gradient, 1 - beta1)
        turned = _turn(gradient, state)
        state["second"].mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
        first = _turn(state["first"], state) / (1 - beta1 ** state["count"])
        second = state["second"] / (1 - beta2 ** state["count"])
        parameter.sub_(_turn(first / (second.sqrt() + group["eps"]), state, back=True), alpha=group["lr"])
        if matrix:
            self._follow(gradient, beta3, state, refresh=state["count"] % group["frequency"] == 0)

    def _follow(self, gradient: Tensor, beta: float, state: dict[str, Any], *, refresh: bool) -> None:
        """Take the gradient into the means and, at times, refresh the bases, eigenvalues falling."""
        for axis, side in enumerate(("left", "right")):
            if side not in state:
                continue
            mean, basis = state[side].lerp_(_square(gradient, side), 1 - beta), state[f"{side} basis"]
            if refresh:
                order = torch.argsort((basis * (mean @ basis)).sum(dim=0), descending=True, stable=True)
                state["second"] = state["second"].index_select(axis, order)
                state[f"{side} basis"] = torch.linalg.qr(mean @ basis[:, order])[0].contiguous()


def _square(gradient: Tensor, side: str) -> Tensor:
    return gradient @ gradient.mT if side == "left" else gradient.mT @ gradient


def _turn(matrix: Tensor, state: dict[str, Any], *, back: bool = False) -> Tensor:
    """Turn G into the bases, Q_L' G Q_R, or ``back``; a side without a basis stays."""
    left, right = state.get("left basis"), state.get("right basis")
    if left is not None:
        matrix = (left if back else left.mT) @ matrix
    return matrix if right is None else matrix @ (right.mT if back else right)
