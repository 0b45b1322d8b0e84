"""Run: one problem solved with one part and one seed, and the row of the table that it becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cpikan.errors import InputError
from cpikan.pipeline.jobs.job import Job, run
from cpikan.streaming.events import SILENT

COLUMNS = (
    *("problem", "part", "seed", "error", "measure", "processor_s", "steps", "parameters", "stop_reason", "trust"),
    *("status", "reason", "plain", "limit_s", "limit_steps"),
)


_WARM_STEPS = 2


@dataclass(frozen=True)
class Limits:
    """What every run may use, ``seconds`` of the processor and, where given, ``steps``; ``plain`` names what is changed."""

    plain: str
    seconds: float
    steps: int | None = None

    def row(self) -> dict[str, str]:
        """Write the limits as columns."""
        return {"plain": self.plain, "limit_s": f"{self.seconds:g}", "limit_steps": _text(self.steps)}


@dataclass(frozen=True)
class Run:
    """A solve of ``problem`` with ``settings``, those of the verb solve; ``part`` says how they differ from the plain ones."""

    problem: str
    part: str
    seed: int
    settings: Mapping[str, Any]
    limits: Limits

    @property
    def key(self) -> tuple[str, str, str]:
        """Name the run as its row does."""
        return (self.problem, self.part, str(self.seed))

    def job(self) -> Job:
        """Make the job of the solve."""
        limits = {"seconds": self.limits.seconds, "steps": self.limits.steps, "clock": "processor"}
        return Job("solve", self.problem, settings={**self.settings, **limits, "seed": self.seed})


class Measure:
    """Measures runs, each problem once in vain: what a process does once, such as loading kernels, is no part of a run."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, one: Run) -> dict[str, str]:
        """Solve, and give the row."""
        if one.problem not in self._known:
            self._known.add(one.problem)
            measured(replace(one, limits=replace(one.limits, steps=_WARM_STEPS)))
        return measured(one)


def measured(one: Run) -> dict[str, str]:
    """Solve, and give the row; what the parts refuse together, and what fails in numbers, has its reason there."""
    head = dict.fromkeys(COLUMNS, "") | {
        "problem": one.problem,
        "part": one.part,
        "seed": str(one.seed),
        **one.limits.row(),
    }
    try:
        found = run(one.job(), SILENT)
    except InputError as refusal:
        return {**head, "status": "refused", "reason": str(refusal)}
    except (ArithmeticError, RuntimeError) as failure:  # singular matrices are RuntimeErrors of torch
        return {**head, "status": "failed", "reason": " ".join(f"{type(failure).__name__}: {failure}".split())}
    measure = "heldout_relative" if found["relative_l2"] is None else "relative_l2"
    row = {key: _text(found[key]) for key in ("parameters", "stop_reason", "trust")}
    row |= {"error": _text(found[measure]), "measure": measure}
    return {
        **head,
        **row,
        "processor_s": _text(found["seconds"]),
        "steps": _text(found["iterations"]),
        "status": "done",
    }


def error_of(row: Mapping[str, str]) -> float:
    """Read the error of a row, infinite where the run failed."""
    found = float(row["error"] or math.inf)
    return found if math.isfinite(found) else math.inf


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)
