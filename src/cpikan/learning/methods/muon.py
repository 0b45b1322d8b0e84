"""Muon: momentum whose singular values are all made one, for matrices of coefficients; Adam for all others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.methods.adam import FirstOrder

_FAST = (3.4445, -4.7750, 2.0315)  # steep at zero: five steps bring singular values from 1e-3 to between 0.68 and 1.14
_FAST_STEPS = 5
_EXACT = (1.875, -1.25, 0.375)  # flat at one, where its first two derivatives vanish: cubic convergence
_EXACT_STEPS = 3
_SHARE = 0.2  # root mean square of an Adam step over its rate, to which steps of matrices are brought (Liu et al. 2025)


@dataclass(frozen=True)
class Muon(FirstOrder):
    """Muon for the matrices of the layers, Adam for what is a vector or has one column.

    Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, Muon: an optimizer for hidden layers in neural networks (2024);
    the rate is brought to that of Adam as by Liu et al., arXiv 2502.16982 (2025).
    ``inertia`` is the share of the momentum that stays, with a look ahead as Nesterov's.
    """

    rate: float = 3e-3
    inertia: float = 0.95
    name: str = "muon"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.inertia < 1:
            raise InputError(f"inertia {self.inertia} of muon: give at least 0 and less than 1")

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make Muon."""
        return MuonOptimizer(parameters, self.rate, self.inertia)


class MuonOptimizer(torch.optim.Optimizer):
    """Muon for parameters of two axes, both longer than one; Adam for all others.

    For a gradient G the momentum is B <- m B + (1 - m) G, the step is the orthogonal factor of (1 - m) G + m B, times the
    rate and 0.2 sqrt(longer side), which is the root mean square of an Adam step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 3e-3, inertia: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "inertia": inertia, "betas": (0.9, 0.999), "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step from the present gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    matrix = parameter.ndim == 2 and min(parameter.shape) > 1
                    move = _turned if matrix else _adam
                    parameter.sub_(move(parameter.grad, group, self.state[parameter]), alpha=group["lr"])


def orthogonalised(matrix: Tensor, fast: int = _FAST_STEPS, exact: int = _EXACT_STEPS) -> Tensor:
    """Compute U V' of a matrix U S V' (m, n) by quintic Newton and Schulz steps; a matrix of zeros stays.

    ``fast`` steps leave singular values between about 0.7 and 1.2, as Muon's; ``exact`` ones then bring them to one.
    Those below 1e-3 of the matrix's length stay smaller.
    """
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    found = wide / wide.norm().clamp_min(torch.finfo(matrix.dtype).tiny)
    for a, b, c in (_FAST,) * fast + (_EXACT,) * exact:
        gram = found @ found.mT
        found = a * found + (b * gram + c * gram @ gram) @ found
    return found.mT if matrix.shape[0] > matrix.shape[1] else found


def _turned(gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum = state["momentum"].lerp_(gradient, 1 - group["inertia"])
    ahead = gradient.lerp(momentum, group["inertia"])
    return _SHARE * max(gradient.shape) ** 0.5 * orthogonalised(ahead)


def _adam(gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    if not state:
        state.update(count=0, first=torch.zeros_like(gradient), second=torch.zeros_like(gradient))
    (beta1, beta2), state["count"] = group["betas"], state["count"] + 1
    first = state["first"].lerp_(gradient, 1 - beta1) / (1 - beta1 ** state["count"])
    second = state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2) / (1 - beta2 ** state["count"])
    return first / (second.sqrt() + group["eps"])
