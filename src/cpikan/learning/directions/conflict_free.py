"""ConFIG: the direction that makes the same angle, below 90 degrees, with the gradients of all terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cpikan.errors import InputError
from cpikan.learning.directions.direction import Direction
from cpikan.learning.methods.method import State

_SAME = 1e-10  # eigenvalues of the cosines relative to the largest, below which gradients are parallel but for rounding
_AGAINST = 1e-9  # of a cosine


def conflict_free(gradients: Float[Tensor, "m p"]) -> Float[Tensor, " p"]:
    """Compute the conflict-free direction (P,) of gradients (m, P).

    Liu, Chu and Thuerey, ConFIG (ICLR 2025): g = (sum_i g_i . u) u, where the unit vector u has equal cosines with all g_i.
    It is a combination of them whose coefficients solve the m x m system of their cosines, in float64 by eigenvalues, so that
    parallel gradients count as one. Gradients that vanish are left out. Zero where no direction of this kind lowers all
    terms, as with two that are opposed.
    """
    found = gradients.double()
    sizes = found.norm(dim=1)
    there = sizes > 0
    if not bool(there.any()):
        return torch.zeros_like(gradients[0])
    units = found[there] / sizes[there, None]
    values, vectors = torch.linalg.eigh(units @ units.mT)
    inverse = torch.where(values > _SAME * values[-1], 1 / values.clamp_min(1e-300), 0.0)
    direction = (vectors @ (inverse * vectors.sum(dim=0))) @ units
    size = direction.norm()
    if not float(size) > 0:
        return torch.zeros_like(gradients[0])
    unit = direction / size
    cosines = units @ unit
    if float(cosines.min()) < -_AGAINST or float(cosines.max()) <= _AGAINST:
        return torch.zeros_like(gradients[0])
    return ((sizes[there] @ cosines) * unit).to(gradients.dtype)


@dataclass(frozen=True)
class ConFIG(Direction):
    """Follow the conflict-free direction of all gradients."""

    def combine(
        self, gradients: Float[Tensor, "m p"], inside: Sequence[bool], state: State
    ) -> tuple[Float[Tensor, " p"], State]:
        """Combine the gradients."""
        return conflict_free(gradients), state


@dataclass(frozen=True)
class MomentumConFIG(Direction):
    """Follow the conflict-free direction of running means, of which each step renews one.

    M-ConFIG of the same paper: one term's gradient a step, in turn; the direction of the means without their bias is divided by
    the root of a running mean of squares, as in Adam, of the gradients that would have made it. Steps before every term has
    had its turn are zero.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas) or not self.eps > 0:
            raise InputError(
                f"M-ConFIG of betas {self.betas} and eps {self.eps}: give 0 or more, below 1, and more than 0"
            )

    def asked(self, count: int, state: State) -> Sequence[int]:
        """Ask for the term whose turn it is."""
        return (state.get("step", 0) % count,)

    def combine(
        self, gradients: Float[Tensor, "m p"], inside: Sequence[bool], state: State
    ) -> tuple[Float[Tensor, " p"], State]:
        """Renew one mean, and combine all."""
        (beta, beta2), count, step = self.betas, len(inside), state.get("step", 0)
        means = state["means"].clone() if step else gradients.new_zeros(count, gradients.shape[1])
        means[step % count] = beta * means[step % count] + (1 - beta) * gradients[0]
        zero = torch.zeros_like(gradients[0])
        kept = {"step": step + 1, "means": means, "last": state.get("last", zero), "second": state.get("second", zero)}
        if step + 1 < count:
            return zero, kept
        turns = torch.tensor([(step - number) // count + 1 for number in range(count)])
        found = conflict_free(means / (1 - beta**turns).to(means.dtype)[:, None])
        steps = step + 2 - count
        mean = found * (1 - beta**steps)
        one = (mean - beta * kept["last"]) / (1 - beta)
        second = beta2 * kept["second"] + (1 - beta2) * one.square()
        found = found / ((second / (1 - beta2**steps)).sqrt() + self.eps)
        return found, {**kept, "last": mean, "second": second}
