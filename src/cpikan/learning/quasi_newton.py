"""Quasi-Newton stages with a strong Wolfe line search: L-BFGS, BFGS, self-scaled BFGS and self-scaled Broyden."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from cpikan.errors import unknown_name
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.line_search import Cost, Trial, trial_at, with_slope, wolfe
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason

UPDATES = ("lbfgs", "bfgs", "ssbfgs", "ssbroyden")


class Inverse(Protocol):
    """An approximate inverse Hessian."""

    def times(self, vector: Tensor) -> Tensor: ...

    def update(self, s: Tensor, y: Tensor, gradient: Tensor, length: float) -> None: ...


@dataclass
class LimitedMemory:
    """L-BFGS: the last ``memory`` pairs (Nocedal 1980)."""

    memory: int = 50
    pairs: deque[tuple[Tensor, Tensor, float]] = field(default_factory=deque)

    def times(self, vector: Tensor) -> Tensor:
        """The two-loop recursion."""
        found, shares = vector.clone(), []
        for s, y, rho in reversed(self.pairs):
            share = rho * float(s @ found)
            shares.append(share)
            found -= share * y
        if self.pairs:
            s, y, _ = self.pairs[-1]
            found *= float((s @ y) / (y @ y))
        for (s, y, rho), share in zip(self.pairs, reversed(shares), strict=True):
            found += (share - rho * float(y @ found)) * s
        return found

    def update(self, s: Tensor, y: Tensor, gradient: Tensor, length: float) -> None:
        """Keep a pair, drop the oldest."""
        self.pairs.append((s, y, 1 / float(s @ y)))
        if len(self.pairs) > self.memory:
            self.pairs.popleft()


@dataclass
class Dense:
    """BFGS, or its self-scaled forms (Al-Baali 1998; Urban, Stefanou and Pons 2025), as a dense inverse Hessian (P, P)."""

    kind: str
    matrix: Tensor | None = None

    def times(self, vector: Tensor) -> Tensor:
        """H v; the identity at first."""
        return vector.clone() if self.matrix is None else self.matrix @ vector

    def update(self, s: Tensor, y: Tensor, gradient: Tensor, length: float) -> None:
        """H <- (H - Hy y'H / y'Hy + phi y'Hy v v') / tau + s s' / y's, with v = s / y's - Hy / y'Hy.

        ``gradient`` is that before the step and ``length`` the step along -H g, so that B s = -length g. BFGS has
        phi = tau = 1, self-scaled BFGS tau = min(1, 1 / b) with b = s'Bs / y's. In this inverse form H is divided by tau.
        """
        ys = float(y @ s)
        if self.matrix is None:
            self.matrix = torch.eye(len(s), dtype=s.dtype, device=s.device) * (ys / float(y @ y))
            hy = self.matrix @ y
            sbs = float(s @ s) * float(y @ y) / ys
        else:
            hy = self.matrix @ y
            sbs = -length * float(s @ gradient)
        yhy = float(y @ hy)
        phi, tau = self._factors(yhy / ys, sbs / ys, len(s))
        v = s / ys - hy / yhy
        self.matrix = (self.matrix - torch.outer(hy, hy / yhy) + phi * yhy * torch.outer(v, v)) / tau
        self.matrix += torch.outer(s, s / ys)
        self.matrix = 0.5 * (self.matrix + self.matrix.mT)

    def _factors(self, h: float, b: float, count: int) -> tuple[float, float]:
        """phi and tau."""
        if self.kind == "bfgs":
            return 1.0, 1.0
        if self.kind == "ssbfgs":
            return 1.0, min(1.0, 1 / b)
        a = max(h * b - 1, 1e-14)  # not negative by Cauchy and Schwarz
        c = math.sqrt(a / (1 + a))
        rho = min(1.0, h * (1 - c))
        theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b))
        sigma = max(1 + theta * a, 1e-14)
        share = sigma ** (1 / (1 - count)) if count > 1 else 1.0
        tau = min(1.0, 1 / b) * (min(share, 1 / theta) if theta > 0 else 1.0)
        if theta <= 0:
            tau = min(min(1.0, 1 / b) * share, sigma)
        return (1 - theta) / (1 + a * theta), max(tau, 1e-12)


@dataclass(frozen=True)
class QuasiNewton:
    """Minimise half the weighted sum of squares from where the field is; ``update`` is one of ``UPDATES``."""

    update: str = "ssbroyden"
    iterations: int = 5000
    gradient: float = 1e-14
    name: str = ""

    def __post_init__(self) -> None:
        if self.update not in UPDATES:
            raise unknown_name("quasi-Newton update", self.update, UPDATES)
        if not self.name:
            object.__setattr__(self, "name", self.update)

    def run(self, run: Run) -> StopReason:
        """Iterate on the parameters of the run's field."""
        cost = field_cost(run)
        trial, reason = minimise_smooth(
            cost, parameter_vector(run.field), self.update, self.iterations, self.gradient, lambda t: _note(run, t)
        )
        set_parameters(run.field, trial.at)
        return reason


def minimise_smooth(
    cost: Cost,
    start: Tensor,
    update: str = "ssbroyden",
    iterations: int = 5000,
    gradient: float = 1e-14,
    note: object = None,
) -> tuple[Trial, StopReason]:
    """Minimise a smooth function of (P,) parameters; gives the last trial and why it stopped.

    A failed line search is answered once by steepest descent with a fresh matrix before it ends the stage.
    """
    now = trial_at(cost, start)
    if not now.finite or not bool(torch.isfinite(now.gradient).all()):
        return now, StopReason.BAD_START
    matrix: Inverse = LimitedMemory() if update == "lbfgs" else Dense(update)
    first_size, fresh = float(now.gradient.norm()), True
    for _ in range(iterations):
        size = float(now.gradient.norm())
        if size <= gradient * max(first_size, 1e-300):
            return now, StopReason.GRADIENT
        direction = -matrix.times(now.gradient)
        if not float(direction @ now.gradient) < 0:
            matrix, fresh = (LimitedMemory() if update == "lbfgs" else Dense(update)), True
            direction = -now.gradient
        begin = with_slope(now, direction)
        found, _ = wolfe(cost, begin, direction, min(1.0, 1 / size) if fresh else 1.0)
        if found is None:
            if fresh:
                return now, StopReason.LINE_SEARCH
            matrix, fresh = (LimitedMemory() if update == "lbfgs" else Dense(update)), True
            continue
        s, y = found.at - now.at, found.gradient - now.gradient
        if float(s @ y) > 1e-14 * float(s.norm() * y.norm()):
            matrix.update(s, y, now.gradient, found.length)
        now, fresh = found, False
        ended = note(now) if callable(note) else None
        if isinstance(ended, StopReason):
            return now, ended
    return now, StopReason.BUDGET


def field_cost(run: Run) -> Cost:
    """The cost of a run and its gradient as functions of the parameter vector."""
    parameters = list(run.field.parameters())

    def cost(vector: Tensor) -> tuple[float, Tensor]:
        set_parameters(run.field, vector)
        value = 0.5 * run.rows.residuals(run.field).square().sum()
        parts = torch.autograd.grad(value, parameters)
        return float(value.detach()), torch.cat([part.flatten() for part in parts])

    return cost


def _note(run: Run, trial: Trial) -> StopReason | None:
    set_parameters(run.field, trial.at)
    return run.note(trial.cost)
