"""Run: a solve on its way, shared by its stages: field, rows, held-out rows, history, time, and the best state."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.protocol import LinearOutput
from cpikan.learning.points import Points
from cpikan.learning.rows import Rows, check_start, make_rows
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.problem import Problem
from cpikan.storage.atomic import write_text

GOAL = 1e-11  # held-out residual relative to that of u = 0; errors are then some 1e-10, beyond it rounding takes over
_EVERY_S = 0.1  # held-out residuals are taken at most this often, so that they cost a fraction of the work


class Stage(Protocol):
    """One part of a recipe: works on ``run.field`` and says why it stopped."""

    @property
    def name(self) -> str: ...

    def run(self, run: Run) -> StopReason: ...


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended, and the best held-out cost by then."""

    stage: str
    reason: StopReason
    iterations: int
    seconds: float
    heldout: float


@dataclass
class History:
    """What happened: one record every so often (stage, iteration, seconds, cost, heldout), and the ends of stages."""

    records: list[dict[str, Any]] = field(default_factory=list)
    ends: list[StageEnd] = field(default_factory=list)

    def save(self, path: Path | str) -> None:
        """Write one JSON object per line, whole or not at all."""
        lines = [json.dumps(record) for record in self.records]
        lines += [json.dumps({**vars(end), "reason": end.reason.name.lower()}) for end in self.ends]
        write_text(path, "\n".join(lines) + "\n")


class Run:
    """One solve: stages read and change ``field`` and ``rows``; ``note`` keeps count, history and the best state."""

    def __init__(self, problem: Problem, seconds: float, seed: int, told: Callable[[str], None] | None = None) -> None:
        if not seconds > 0:
            raise InputError(f"time limit {seconds} s: give more than 0")
        self.problem, self.seed, self._told = problem, seed, told
        self.field: nn.Module
        self.rows: Rows
        self.heldout: Rows
        self.history = History()
        self.iterations = 0
        self.started = time.perf_counter()
        self.end = self.started + seconds
        self.best: Tensor | None = None
        self.best_cost = float("inf")
        self.scale = 0.0
        self.placed = False
        self._checked = 0.0
        self._stage, self._since = "", 0

    @property
    def left_s(self) -> float:
        """Seconds until the time limit."""
        return self.end - time.perf_counter()

    def place(self, field: nn.Module, points: Points, *, balanced: bool = True) -> None:
        """Take a field, draw points for it, weigh the rows, and start the record of the best anew."""
        self.field, self.placed = field, True
        rows = make_rows(self.problem, points)
        check_start(rows, field)
        held = make_rows(self.problem, heldout_points(points))
        if balanced:
            rows = rows.balanced(field)
        else:
            rows = Rows(tuple(replace(one, weight=one.share * len(one.points) ** -0.5) for one in rows.sets))
        self.rows = rows
        weights = [a.weight * (len(a.points) / len(b.points)) ** 0.5 for a, b in zip(rows.sets, held.sets, strict=True)]
        self.heldout = Rows(tuple(replace(one, weight=w) for one, w in zip(held.sets, weights, strict=True)))
        self.best, self.best_cost = None, float("inf")
        self.scale = self.zero_cost()

    def zero_cost(self) -> float:
        """The held-out cost of u = 0, where the output is linear in coefficients that can be made zero; else as it is."""
        if not isinstance(self.field, LinearOutput | PiecewiseChebyshev):
            return self.heldout_cost()
        kept = self.field.output_coefficients().detach().clone()
        self.field.set_output_coefficients(torch.zeros_like(kept))
        cost = self.heldout_cost()
        self.field.set_output_coefficients(kept)
        return cost

    def relative(self) -> float:
        """The best held-out residual relative to that of u = 0."""
        return math.sqrt(self.best_cost / self.scale) if self.scale > 0 else 0.0

    def at_goal(self) -> bool:
        """Whether that is as small as is worth going for."""
        return self.relative() <= GOAL

    def heldout_cost(self) -> float:
        """Half the weighted sum of squares at points that are not fitted, on the scale of the cost that is."""
        with torch.no_grad():
            return float(0.5 * self.heldout.residuals(self.field).square().sum())

    def stage(self, stage: Stage) -> StopReason:
        """Run one stage, note its end, and leave the field in its best state."""
        self._stage, self._since = stage.name, self.iterations
        started = time.perf_counter()
        reason = stage.run(self)
        self.keep_best()
        self.restore_best()
        self.history.ends.append(
            StageEnd(stage.name, reason, self.iterations - self._since, time.perf_counter() - started, self.best_cost)
        )
        return reason

    def note(self, cost: float, *, count: int = 1, check: bool = False) -> StopReason | None:
        """Count iterations; now and then record the costs and keep the best state. Gives TIME when it is up."""
        self.iterations += count
        now = time.perf_counter()
        if check or now - self._checked > _EVERY_S:
            heldout = self.keep_best()
            self._checked = now
            record = {"stage": self._stage, "iteration": self.iterations, "seconds": now - self.started}
            self.history.records.append({**record, "cost": cost, "heldout": heldout})
            if self._told is not None:
                self._told(f"{self._stage} {self.iterations}, residual {heldout**0.5:.1e}, {now - self.started:.0f} s")
        return StopReason.TIME if now > self.end else None

    def count(self, steps: int) -> None:
        """Count iterations of a part whose field is not yet that of the run."""
        self.iterations += steps

    def tell(self, text: str) -> None:
        """Let whoever listens know what is being done."""
        if self._told is not None:
            self._told(f"{self._stage}: {text}, {time.perf_counter() - self.started:.0f} s")

    def offer(self, field: nn.Module, points: Points) -> None:
        """Take a finished field, with points to look at it, if its held-out residual is relatively the lowest so far."""
        kept = (self.field, self.rows, self.heldout, self.scale, self.best, self.best_cost) if self.placed else None
        before = self.relative() if self.placed else math.inf
        self.place(field, points, balanced=False)
        self.note(self.keep_best(), count=0, check=True)
        if kept is not None and self.relative() >= before:
            self.field, self.rows, self.heldout, self.scale, self.best, self.best_cost = kept

    def keep_best(self) -> float:
        """Take the held-out cost, and the state if it is the best so far."""
        found = self.heldout_cost()
        if found < self.best_cost:
            self.best, self.best_cost = parameter_vector(self.field), found
        return found

    def restore_best(self) -> None:
        """Put the best state back."""
        if self.best is not None:
            set_parameters(self.field, self.best)


def heldout_points(points: Points) -> Points:
    """Others than those fitted, of another rule: random, about half as many, from another seed."""
    return Points(max(200, points.interior // 2), max(8, points.boundary // 2), "random", points.seed + 7919, True)
