"""Run: a solve on its way, shared by its stages: field, rows, held-out rows, history, time, the best state, and what a
checkpoint needs of all that."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cpikan.errors import InputError, ResumeError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.protocol import LinearOutput
from cpikan.learning.checkpoint import Checkpoint, Saved, State, or_infinite, split_state
from cpikan.learning.parts import Parts
from cpikan.learning.points import Points
from cpikan.learning.rows import Rows, check_start, make_rows
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.problem import Problem
from cpikan.storage.atomic import write_text

GOAL = 1e-11  # held-out residual relative to that of u = 0; errors are then some 1e-10, beyond it rounding takes over
# iterations from one look at the held-out residuals to the next: half the points without derivatives by the parameters are
# some fifth of an iteration, so that looking costs 2 %; counted and not timed, so that equal runs end with equal bits
_EVERY = 10
_SAME = 1e-6  # relative difference of a cost that rounding on another machine can make


class Stage(Protocol):
    """One part of a recipe: works on ``run.field`` and says why it stopped.

    One that can be continued asks ``run.kept()`` for what it left, besides the parameters, and offers it after every
    iteration, by ``run.note(..., state=...)`` or ``run.keep(...)``; any other is begun anew.
    """

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


@dataclass(frozen=True)
class Placing:
    """A field, the points it was placed at, and the rows made from them."""

    field: nn.Module
    points: Points
    rows: Rows
    heldout: Rows


class Run:
    """One solve: stages read and change ``field`` and ``rows``; ``note`` keeps count, history and the best state."""

    def __init__(
        self,
        problem: Problem,
        seconds: float,
        seed: int,
        told: Callable[[str], None] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        if not seconds > 0:
            raise InputError(f"time limit {seconds} s: give more than 0")
        self.problem, self.seed, self._told, self._checkpoint = problem, seed, told, checkpoint
        self.field: nn.Module
        self.rows: Rows
        self.heldout: Rows
        self.history = History()
        self.iterations = 0
        self.started = time.perf_counter()
        self._limit_s = seconds
        self.best: Tensor | None = None
        self.best_cost = float("inf")
        self.scale = 0.0
        self.placed = False
        self._points: Points
        self._given = False  # whether the field was, so that it need not be stored as a whole
        self._checked, self._cost = 0, float("inf")
        self._stage, self._since, self._since_s = "", 0, 0.0
        self._parts = Parts()
        self._state: Callable[[], State] | None = None
        self.reached: list[tuple[float, StopReason]] = []  # the best cost and the reason of every start that has ended
        self._champion: tuple[dict[str, Tensor], float, Tensor] | None = None

    @property
    def end(self) -> float:
        """When time is up, on the clock of ``time.perf_counter``."""
        return self.started + self._limit_s

    @property
    def placing(self) -> Placing:
        """The field and where it is looked at; to be put back when another one is worse."""
        return Placing(self.field, self._points, self.rows, self.heldout)

    @placing.setter
    def placing(self, placing: Placing) -> None:
        self.field, self._points, self.rows, self.heldout = placing.field, placing.points, placing.rows, placing.heldout

    @property
    def left_s(self) -> float:
        """Seconds until the time limit."""
        return self.end - time.perf_counter()

    def place(self, field: nn.Module, points: Points, *, balanced: bool = True) -> None:
        """Take a field, draw points for it, weigh the rows, and start the record of the best anew."""
        self.field, self.placed = field, True
        rows = make_rows(self.problem, points)
        check_start(rows, field)
        if balanced:
            rows = rows.balanced(field)
        else:
            rows = Rows(tuple(replace(one, weight=one.share * len(one.points) ** -0.5) for one in rows.sets))
        self._weigh(points, rows)
        self.best, self.best_cost = None, float("inf")
        self.scale = self.zero_cost()

    def _weigh(self, points: Points, rows: Rows) -> None:
        """Take rows with their weights, and held-out rows with weights to match."""
        held = make_rows(self.problem, heldout_points(points))
        weights = [a.weight * (len(a.points) / len(b.points)) ** 0.5 for a, b in zip(rows.sets, held.sets, strict=True)]
        self._points, self.rows = points, rows
        self.heldout = Rows(tuple(replace(one, weight=w) for one, w in zip(held.sets, weights, strict=True)))

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
        return self._turn(stage, whole=True)

    def part(self, stage: Stage) -> StopReason:
        """Run a stage as a part of another; a checkpoint continues at the part that was not done."""
        return self._turn(stage, whole=False)

    def _turn(self, stage: Stage, *, whole: bool) -> StopReason:
        parts = self._parts
        number, done = parts.begin(self.left_s > 0)
        if done is not None:
            return done
        outer, self._state, parts.open = (parts.open, self._state), None, number
        if whole and not parts.resumes(number):
            self._stage, self._since, self._since_s = stage.name, self.iterations, self.seconds
        reason = stage.run(self)
        if reason is StopReason.TIME and self._state is not None and parts.late is None:
            self._save()  # as it is, before the best state is put back: the next step goes on from here
            parts.late = (number, parts.next)
        if whole:
            if self.iterations > self._checked:  # the end of a stage is in the history, however short the stage was
                self._look()
            self.keep_best()
            self.restore_best()
            took = self.seconds - self._since_s
            end = StageEnd(stage.name, reason, self.iterations - self._since, took, self.best_cost)
            self.history.ends.append(end)
        parts.open, self._state = outer
        if parts.late is None:
            parts.done[number] = (reason, parts.next)
            parts.kept = None
            self._save()
        return reason

    @property
    def went_on(self) -> bool:
        """Whether a resumed run had gone on from here: its figures are then later ones, not to decide by again."""
        return self._parts.went_on

    def kept(self) -> dict[str, Any]:
        """What the stage that runs now had offered when it was interrupted, once; empty where it begins."""
        return self._parts.take()

    def keep(self, state: Callable[[], State]) -> None:
        """Let the stage be continued from here; the state is asked for when it is written."""
        self._state = state
        if self._checkpoint is not None and self._checkpoint.due:
            self._save()

    @property
    def seconds(self) -> float:
        """Seconds used, those before an interruption too."""
        return time.perf_counter() - self.started

    def note(
        self, cost: float, *, count: int = 1, check: bool = False, state: Callable[[], State] | None = None
    ) -> StopReason | None:
        """Count iterations; now and then record the costs and keep the best state. Gives TIME when it is up.

        ``state`` gives what the stage needs to go on from here, besides the parameters of the field.
        """
        self.iterations, self._cost = self.iterations + count, cost
        if check or self.iterations - self._checked >= _EVERY:
            self._look()
        if state is not None:
            self.keep(state)
        return StopReason.TIME if self.seconds > self._limit_s else None

    def _look(self) -> None:
        """Record the cost and the held-out cost, and keep the best state."""
        heldout, now = self.keep_best(), self.seconds
        self._checked = self.iterations
        record = {"stage": self._stage, "iteration": self.iterations, "seconds": now}
        self.history.records.append({**record, "cost": self._cost, "heldout": heldout})
        if self._told is not None:
            self._told(f"{self._stage} {self.iterations}, residual {heldout**0.5:.1e}, {now:.0f} s")

    def count(self, steps: int) -> None:
        """Count iterations of a part whose field is not yet that of the run."""
        self.iterations += steps

    def tell(self, text: str) -> None:
        """Let whoever listens know what is being done."""
        if self._told is not None:
            self._told(f"{self._stage}: {text}, {self.seconds:.0f} s")

    def offer(self, field: nn.Module, points: Points) -> None:
        """Take a finished field, with points to look at it, if its held-out residual is relatively the lowest so far."""
        kept = (self.placing, self.scale, self.best, self.best_cost) if self.placed else None
        before = self.relative() if self.placed else math.inf
        self.place(field, points, balanced=False)
        self.note(self.keep_best(), count=0, check=True)
        if kept is not None and self.relative() >= before:
            self.placing, self.scale, self.best, self.best_cost = kept

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

    def begin_again(self, start: Callable[[], None]) -> None:
        """Put the best state aside, change the field by ``start``, and look for a best state anew from there."""
        self._crown()
        start()
        self.best, self.best_cost = None, float("inf")
        self.keep_best()

    def settle(self) -> None:
        """Leave the field in the best state of all beginnings."""
        if self._champion is not None:
            self._crown()
            state, self.best_cost, self.best = self._champion
            self.field.load_state_dict(state)

    def _crown(self) -> None:
        if self._champion is None or self.best_cost < self._champion[1]:
            self.restore_best()
            state = {name: tensor.detach().clone() for name, tensor in self.field.state_dict().items()}
            self._champion = (state, self.best_cost, parameter_vector(self.field))

    def restore(self, saved: Saved | None, field: nn.Module | None) -> bool:
        """Go back to where a checkpoint was written, whether there is one; ``field`` where one was given.

        Raises ResumeError for a field of another shape and for a problem whose residuals are others.
        """
        self._given = field is not None
        if saved is None:
            return False
        numbers, tensors = saved.numbers, saved.tensors
        self.started -= numbers["seconds"]
        self.iterations, self._checked = numbers["iterations"], numbers["checked"]
        self._cost = or_infinite(numbers["cost"])
        self._stage, self._since, self._since_s = numbers["stage"]
        self._parts = Parts.of(numbers["parts"], numbers["state"], _inside(tensors, "state"))
        self.history.records = numbers["records"]
        self.history.ends = [StageEnd(**{**end, "reason": StopReason(end["reason"])}) for end in numbers["ends"]]
        self.reached = [(or_infinite(cost), StopReason(reason)) for cost, reason in numbers["reached"]]
        chosen = field if saved.field is None else saved.field
        if chosen is None:
            raise ResumeError("the checkpoint was written with a field of yours: give one of that shape")
        self._restore_field(chosen, numbers, tensors)
        return True

    def _restore_field(self, field: nn.Module, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        try:
            field.load_state_dict(_inside(tensors, "field"))
        except RuntimeError as failure:
            raise ResumeError("the field is not that of the checkpoint: give one of the same shape") from failure
        self.field, self.placed = field, True
        points = Points(**numbers["points"])
        rows = make_rows(self.problem, points)
        if [one.name for one in rows.sets] != [name for name, _ in numbers["weights"]]:
            raise ResumeError("the problem's conditions are not those of the checkpoint: give the same problem")
        self._weigh(
            points,
            Rows(tuple(replace(one, weight=w) for one, (_, w) in zip(rows.sets, numbers["weights"], strict=True))),
        )
        self.scale = numbers["scale"]
        self.best, self.best_cost = tensors.get("best"), or_infinite(numbers["best_cost"])
        if numbers["champion"] is not None:
            champion = or_infinite(numbers["champion"])
            self._champion = (_inside(tensors, "champion"), champion, tensors["champion best"])
        if self.best is not None:
            now = parameter_vector(field)
            set_parameters(field, self.best)
            found = self.heldout_cost()
            set_parameters(field, now)
            if not abs(found - self.best_cost) <= _SAME * self.best_cost + 1e-9 * _SAME * self.scale:
                raise ResumeError(
                    f"the residuals of {self.problem.name} are not those of the checkpoint (cost {found:.3e} where "
                    f"{self.best_cost:.3e} was written): give the same problem"
                )

    def _save(self) -> None:
        """Write the checkpoint, if there is one; not any more when a part has run out of time and can go on."""
        if self._checkpoint is None or self._parts.late is not None or not self.placed:
            return
        state = {} if self._state is None else self._state()
        plain, tensors = split_state(state)
        numbers: dict[str, Any] = {
            "seconds": self.seconds,
            "iterations": self.iterations,
            "checked": self._checked,
            "cost": self._cost,
            "stage": [self._stage, self._since, self._since_s],
            "parts": self._parts.numbers(),
            "state": plain,
            "points": asdict(self._points),
            "weights": [[one.name, one.weight] for one in self.rows.sets],
            "scale": self.scale,
            "best_cost": self.best_cost,
            "reached": [[cost, int(reason)] for cost, reason in self.reached],
            "champion": None if self._champion is None else self._champion[1],
            "records": self.history.records,
            "ends": [{**vars(end), "reason": int(end.reason)} for end in self.history.ends],
        }
        held = {f"state/{name}": tensor for name, tensor in tensors.items()}
        held |= {f"field/{name}": tensor for name, tensor in self.field.state_dict().items()}
        if self.best is not None:
            held["best"] = self.best
        if self._champion is not None:
            held |= {f"champion/{name}": tensor for name, tensor in self._champion[0].items()}
            held["champion best"] = self._champion[2]
        self._checkpoint.write(numbers, held, None if self._given else self.field)


def _inside(tensors: dict[str, Tensor], folder: str) -> dict[str, Tensor]:
    """Tensors under a name."""
    return {name.removeprefix(f"{folder}/"): t for name, t in tensors.items() if name.startswith(f"{folder}/")}


def heldout_points(points: Points) -> Points:
    """Others than those fitted, of another rule: random, about half as many, from another seed."""
    return Points(max(200, points.interior // 2), max(8, points.boundary // 2), "random", points.seed + 7919, True)
