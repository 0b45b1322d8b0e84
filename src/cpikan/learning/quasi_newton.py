"""Quasi-Newton stages with a strong Wolfe line search: L-BFGS, BFGS, self-scaled BFGS and self-scaled Broyden."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from cpikan.errors import unknown_name
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.line_search import Cost, Trial, trial_at, with_slope, wolfe
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason

Note = Callable[[Trial], StopReason | None]
UPDATES = ("lbfgs", "bfgs", "ssbfgs", "ssbroyden")


class Inverse(Protocol):
    """An approximate inverse Hessian."""

    def times(self, vector: Tensor) -> Tensor: ...

    def update(self, s: Tensor, y: Tensor, gradient: Tensor, length: float) -> None: ...

    def state(self) -> dict[str, Tensor]: ...

    def resume(self, state: Mapping[str, Any]) -> None: ...


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

    def state(self) -> dict[str, Tensor]:
        """The pairs as rows, (pairs, P) each."""
        if not self.pairs:
            return {}
        return {"s": torch.stack([s for s, _, _ in self.pairs]), "y": torch.stack([y for _, y, _ in self.pairs])}

    def resume(self, state: Mapping[str, Any]) -> None:
        """From ``state``."""
        if "s" in state:
            pairs = ((s.clone(), y.clone()) for s, y in zip(state["s"], state["y"], strict=True))
            self.pairs = deque((s, y, 1 / float(s @ y)) for s, y in pairs)


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

        H begins as the identity, or more where the first pair shows less curvature: what is too large is put right by one
        update each, what is too small takes many (y's / y'y, the usual first scale, is 1e-8 of what the flattest
        direction of a quadratic of that condition needs, and makes BFGS ten times as slow there).
        """
        ys = float(y @ s)
        if self.matrix is None:
            scale = max(1.0, float(s @ s) / ys)
            self.matrix = torch.eye(len(s), dtype=s.dtype, device=s.device) * scale
            sbs = float(s @ s) / scale
        else:
            sbs = -length * float(s @ gradient)
        hy = self.matrix @ y
        yhy = float(y @ hy)
        phi, tau = self._factors(yhy / ys, sbs / ys, len(s))
        v = s / ys - hy / yhy
        self.matrix = (self.matrix - torch.outer(hy, hy / yhy) + phi * yhy * torch.outer(v, v)) / tau
        self.matrix += torch.outer(s, s / ys)
        self.matrix = 0.5 * (self.matrix + self.matrix.mT)

    def state(self) -> dict[str, Tensor]:
        """The matrix, once there is one."""
        return {} if self.matrix is None else {"matrix": self.matrix}

    def resume(self, state: Mapping[str, Any]) -> None:
        """From ``state``."""
        self.matrix = state.get("matrix")

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
        cost, kept = field_cost(run), run.kept()
        start = parameter_vector(run.field)
        descent = resumed(start, self.update, kept) if kept else Descent.begin(cost, start, self.update)

        def note(trial: Trial) -> StopReason | None:
            set_parameters(run.field, trial.at)
            return run.note(trial.cost, state=descent.state)

        reason = descent.go(cost, self.iterations, self.gradient, note)
        set_parameters(run.field, descent.now.at)
        return reason


def minimise_smooth(
    cost: Cost,
    start: Tensor,
    update: str = "ssbroyden",
    iterations: int = 5000,
    gradient: float = 1e-14,
    note: Note | None = None,
) -> tuple[Trial, StopReason]:
    """Minimise a smooth function of (P,) parameters; gives the last trial and why it stopped."""
    descent = Descent.begin(cost, start, update)
    reason = descent.go(cost, iterations, gradient, note)
    return descent.now, reason


@dataclass
class Descent:
    """A minimisation on its way: the last trial, the matrix, the size of the first gradient, the cost before, the count."""

    update: str
    now: Trial
    matrix: Inverse
    first_size: float
    before: float | None = None
    taken: int = 0
    fresh: bool = True

    @classmethod
    def begin(cls, cost: Cost, start: Tensor, update: str) -> Descent:
        """From parameters (P,)."""
        now = trial_at(cost, start)
        return cls(update, now, fresh_matrix(update), float(now.gradient.norm()))

    def state(self) -> dict[str, Any]:
        """All but the parameters."""
        numbers = {name: getattr(self, name) for name in ("first_size", "before", "taken", "fresh")}
        return {**numbers, **self.matrix.state(), "gradient": self.now.gradient, "cost": self.now.cost}

    def go(self, cost: Cost, iterations: int, gradient: float, note: Note | None = None) -> StopReason:
        """Iterate; a failed line search is answered once by steepest descent with a fresh matrix before it ends the stage.

        The first trial of a step is the one at which a parabola falls by as much as the last step did (Nocedal and Wright
        2006, 3.60), at most a full one.
        """
        if not self.now.finite or not bool(torch.isfinite(self.now.gradient).all()):
            return StopReason.BAD_START
        while self.taken < iterations:
            now, size = self.now, float(self.now.gradient.norm())
            if size <= gradient * max(self.first_size, 1e-300):
                return StopReason.GRADIENT
            self.taken += 1
            direction = -self.matrix.times(now.gradient)
            if not float(direction @ now.gradient) < 0:
                self._renew()
                direction = -now.gradient
            begin = with_slope(now, direction)
            found, _ = wolfe(cost, begin, direction, min(1.0, 1 / size) if self.fresh else self._first(begin))
            if found is None:
                if self.fresh:
                    return StopReason.LINE_SEARCH
                self._renew()
                continue
            s, y = found.at - now.at, found.gradient - now.gradient
            if float(s @ y) > 1e-14 * float(s.norm() * y.norm()):
                self.matrix.update(s, y, now.gradient, found.length)
            self.before, self.now, self.fresh = now.cost, found, False
            ended = note(found) if note is not None else None
            if ended is not None:
                return ended
        return StopReason.BUDGET

    def _first(self, begin: Trial) -> float:
        fall = begin.cost - self.before if self.before is not None else 0.0
        return min(1.0, 2.02 * fall / begin.slope) if fall < 0 else 1.0

    def _renew(self) -> None:
        self.matrix, self.fresh = fresh_matrix(self.update), True


def resumed(start: Tensor, update: str, state: Mapping[str, Any]) -> Descent:
    """A descent at parameters (P,) with a state that was kept."""
    now = Trial(0.0, start, state["cost"], state["gradient"], 0.0)
    matrix = fresh_matrix(update)
    matrix.resume(state)
    return Descent(update, now, matrix, state["first_size"], state["before"], state["taken"], state["fresh"])


def fresh_matrix(update: str) -> Inverse:
    """What ``update`` begins with."""
    return LimitedMemory() if update == "lbfgs" else Dense(update)


def field_cost(run: Run) -> Cost:
    """The cost of a run and its gradient as functions of the parameter vector."""
    parameters = list(run.field.parameters())

    def cost(vector: Tensor) -> tuple[float, Tensor]:
        set_parameters(run.field, vector)
        value = 0.5 * run.rows.residuals(run.field).square().sum()
        parts = torch.autograd.grad(value, parameters)
        return float(value.detach()), torch.cat([part.flatten() for part in parts])

    return cost
