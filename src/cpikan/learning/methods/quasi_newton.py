"""Quasi-Newton stages with a strong Wolfe line search: L-BFGS, BFGS, self-scaled BFGS and self-scaled Broyden."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from scipy.linalg.blas import dsymv, dsyr, dsyr2
from torch import Tensor, nn

from cpikan.errors import unknown_name
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.methods.line_search import Cost, Trial, trial_at, with_slope, wolfe
from cpikan.learning.methods.method import Method, State
from cpikan.learning.objective import Objective
from cpikan.learning.stop_reason import StopReason

UPDATES = ("lbfgs", "bfgs", "ssbfgs", "ssbroyden")


class Inverse(Protocol):
    """An approximate inverse Hessian."""

    def times(self, vector: Tensor) -> Tensor: ...

    def update(self, s: Tensor, y: Tensor, gradient: Tensor, length: float) -> None: ...

    def state(self) -> dict[str, Tensor]: ...


@dataclass
class LimitedMemory:
    """L-BFGS: the last ``memory`` pairs (Nocedal 1980)."""

    memory: int = 50
    pairs: deque[tuple[Tensor, Tensor, float]] = field(default_factory=deque)

    def times(self, vector: Tensor) -> Tensor:
        """Multiply a vector (P,) by the approximate inverse Hessian, by the two-loop recursion."""
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
        """Stack the pairs as rows, (pairs, P) each, for a checkpoint."""
        if not self.pairs:
            return {}
        return {"s": torch.stack([s for s, _, _ in self.pairs]), "y": torch.stack([y for _, y, _ in self.pairs])}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> LimitedMemory:
        """Take the pairs of a state."""
        pairs = zip(state["s"], state["y"], strict=True) if "s" in state else ()
        return cls(pairs=deque((s, y, 1 / float(s @ y)) for s, y in pairs))


@dataclass
class Dense:
    """BFGS, or its self-scaled forms (Al-Baali 1998; Urban, Stefanou and Pons 2025), as a dense inverse Hessian (P, P)."""

    kind: str
    matrix: Tensor | None = None  # the lower triangle; what stands above it is not read

    def times(self, vector: Tensor) -> Tensor:
        """Multiply a vector by H; the identity at first."""
        if self.matrix is None:
            return vector.clone()
        return torch.from_numpy(dsymv(1.0, self._columns(), vector.numpy(), lower=0))

    def update(self, s: Tensor, y: Tensor, gradient: Tensor, length: float) -> None:
        """Update H <- (H - Hy y'H / y'Hy + phi y'Hy v v') / tau + s s' / y's, with v = s / y's - Hy / y'Hy.

        ``gradient`` is that before the step and ``length`` the step along -H g, so that B s = -length g. BFGS has
        phi = tau = 1, self-scaled BFGS tau = min(1, 1 / b) with b = s'Bs / y's. In this inverse form H is divided by tau.

        What is added lies in the span of s and Hy: s w' + w s' + c Hy y'H, added in place to one triangle, without a
        matrix besides. H begins as the identity, or more where the first pair shows less curvature: what is too large is put
        right by one update each, what is too small takes many (y's / y'y, the usual first scale, is 1e-8 of what the
        flattest direction of a quadratic of that condition needs, and makes BFGS ten times as slow there).
        """
        ys = float(y @ s)
        if self.matrix is None:
            scale = max(1.0, float(s @ s) / ys)
            self.matrix = torch.eye(len(s), dtype=s.dtype) * scale
            sbs = float(s @ s) / scale
        else:
            sbs = -length * float(s @ gradient)
        hy = self.times(y)
        yhy = float(y @ hy)
        phi, tau = self._factors(yhy / ys, sbs / ys, len(s))
        if tau != 1:
            self.matrix /= tau
        columns = self._columns()
        w = (0.5 * (phi * yhy / tau + ys) / ys**2) * s - (phi / (ys * tau)) * hy
        dsyr2(1.0, s.numpy(), w.numpy(), lower=0, a=columns, overwrite_a=1)
        if phi != 1:
            dsyr((phi - 1) / (yhy * tau), hy.numpy(), lower=0, a=columns, overwrite_a=1)

    def _columns(self) -> np.ndarray:
        """View the matrix as BLAS wants it, column by column: our lower triangle is its upper one."""
        assert self.matrix is not None
        return self.matrix.numpy().T

    def state(self) -> dict[str, Tensor]:
        """Return the inverse Hessian (P, P) for a checkpoint, once there is one; the next update changes it in place."""
        return {} if self.matrix is None else {"matrix": self.matrix}

    def _factors(self, h: float, b: float, count: int) -> tuple[float, float]:
        """Compute the factors phi and tau of the update."""
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


def inverse_of(update: str, state: Mapping[str, Any]) -> Inverse:
    """Take the approximate inverse Hessian of a state; the identity where the state has none."""
    return LimitedMemory.of(state) if update == "lbfgs" else Dense(update, state.get("matrix"))


@dataclass(frozen=True)
class QuasiNewton(Method):
    """Minimise from where the field is, with a strong Wolfe line search; ``update`` is one of ``UPDATES``.

    ``gradient`` is the length of the gradient, relative to the first one, at which the minimisation ends. Points and weights
    may change on the way: the curvature that was found stays.
    """

    update: str = "ssbroyden"
    iterations: int = 5000
    gradient: float = 1e-14
    name: str = ""

    def __post_init__(self) -> None:
        if self.update not in UPDATES:
            raise unknown_name("quasi-Newton update", self.update, UPDATES)
        if not self.name:
            object.__setattr__(self, "name", self.update)

    def init(self, objective: Objective, field: nn.Module) -> State:
        """Take cost and gradient at the start."""
        now = trial_at(field_cost(objective, field), parameter_vector(field))
        finite = now.finite and bool(torch.isfinite(now.gradient).all())
        reason = StopReason.RUNNING if finite else StopReason.BAD_START
        numbers = {
            "taken": 0,
            "fresh": True,
            "before": None,
            "cost": now.cost,
            "first_size": float(now.gradient.norm()),
        }
        return self._ended({**numbers, "reason": int(reason), "_now": now}, now)

    def step(self, objective: Objective, field: nn.Module, state: State) -> tuple[State, float]:
        """Search along the direction of the matrix; a search that fails is answered once by steepest descent.

        The first trial is the one at which a parabola falls by as much as the last step did (Nocedal and Wright 2006,
        3.60), at most a full one.
        """
        cost = field_cost(objective, field)
        now = state.get("_now") or trial_at(cost, parameter_vector(field))
        if now.cost != state["cost"]:  # other points or weights: the fall of the last step is that of another cost
            state = {**state, "before": None}
        matrix, fresh, taken = inverse_of(self.update, state), state["fresh"], state["taken"]
        while True:
            taken += 1
            direction = -matrix.times(now.gradient)
            if not float(direction @ now.gradient) < 0:
                matrix, fresh, direction = inverse_of(self.update, {}), True, -now.gradient
            begin = with_slope(now, direction)
            first = min(1.0, 1 / float(now.gradient.norm())) if fresh else _first(begin, state["before"])
            found, _ = wolfe(cost, begin, direction, first)
            if found is not None or fresh or taken >= self.iterations:
                break
            matrix, fresh = inverse_of(self.update, {}), True
        state = {**state, "taken": taken}
        if found is None:
            set_parameters(field, now.at)
            reason = StopReason.LINE_SEARCH if fresh else StopReason.BUDGET
            return {**state, "reason": int(reason)}, now.cost
        set_parameters(field, found.at)
        s, y = found.at - now.at, found.gradient - now.gradient
        if float(s @ y) > 1e-14 * float(s.norm() * y.norm()):
            matrix.update(s, y, now.gradient, found.length)
        kept = {name: state[name] for name in ("taken", "first_size", "reason")}
        state = {**kept, "fresh": False, "before": now.cost, "cost": found.cost, **matrix.state(), "_now": found}
        return self._ended(state, found), found.cost

    def stop(self, state: State) -> StopReason:
        """Stop at a flat gradient, after a failed search, or after ``iterations`` searches."""
        if state["reason"] == StopReason.RUNNING and state["taken"] >= self.iterations:
            return StopReason.BUDGET
        return StopReason(state["reason"])

    def _ended(self, state: State, now: Trial) -> State:
        flat = float(now.gradient.norm()) <= self.gradient * max(state["first_size"], 1e-300)
        return {**state, "reason": int(StopReason.GRADIENT)} if flat and not state["reason"] else state


def _first(begin: Trial, before: float | None) -> float:
    fall = begin.cost - before if before is not None else 0.0
    return min(1.0, 2.02 * fall / begin.slope) if fall < 0 else 1.0


def field_cost(objective: Objective, field: nn.Module) -> Cost:
    """Make the cost and its gradient functions of the parameter vector."""

    def cost(vector: Tensor) -> tuple[float, Tensor]:
        set_parameters(field, vector)
        value, gradient = objective.gradient(field)
        return float(value), gradient

    return cost
