"""The verb ``ablate``: problems with and without each part, seed by seed, at equal processor time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.learning.effects import PLAIN
from cpikan.option import option
from cpikan.pipeline.jobs.ablation.part import Part, part_of, unique, with_pairs
from cpikan.pipeline.jobs.ablation.run import Limits, Measure, Run
from cpikan.pipeline.jobs.ablation.table import Table
from cpikan.pipeline.jobs.job import Job, RunOptions, Verb
from cpikan.streaming.events import Events, report
from cpikan.streaming.executor import ProcessExecutor, SerialExecutor
from cpikan.streaming.threads import single_threaded

_NAME = "NAME=VALUE"


@dataclass(frozen=True)
class AblateOptions:
    """What is compared: ``parts`` over the ``plain`` settings, both settings of solve by name, on problems of the catalogue."""

    problems: tuple[str, ...] = option(
        ("poisson-2d", "helmholtz-2d-1-4", "burgers"),
        "problems of the catalogue (default: poisson-2d helmholtz-2d-1-4 burgers)",
        metavar="NAME",
        many=True,
    )
    parts: tuple[str, ...] = option(
        ("sampler=rad", "balancer=relobralo", "field=mlp", "recipe=soap"),
        "settings of solve to try, each NAME=VALUE or several joined by +, as sampler=rad or recipe=adam+direction=config "
        "(default: sampler=rad balancer=relobralo field=mlp recipe=soap)",
        metavar=_NAME,
        many=True,
    )
    plain: str = option("recipe=ssbroyden", "the settings that parts are compared with, joined by +", metavar=_NAME)
    pairs: bool = option(False, "also try every two parts together")
    seeds: int = option(3, "seeds 0 to N - 1, the same for every part", metavar="N")
    seconds: float = option(20.0, "processor seconds of a run")
    steps: int | None = option(None, "at most N steps of a run", metavar="N")
    jobs: int = option(1, "runs at a time, each in a process of its own with one thread", metavar="N")

    def __post_init__(self) -> None:
        for name, value in (("seeds", self.seeds), ("jobs", self.jobs)):
            if value < 1:
                raise InputError(f"{value} {name}: give at least 1")
        for name, names in (("problems", self.problems), ("parts", self.parts)):
            if not names:
                raise InputError(f"no {name}: name at least one")
        if not self.seconds > 0:
            raise InputError(f"time limit {self.seconds} s: give more than 0")
        self.chosen()

    def chosen(self) -> tuple[Part, list[Part]]:
        """Read the plain settings and the parts; raises InputError for what is neither."""
        parts = unique(part_of(text) for text in self.parts)
        return part_of(self.plain), with_pairs(parts) if self.pairs else parts

    def runs(self) -> list[Run]:
        """List all runs: seed by seed and problem by problem, so that what is compared runs side by side, and what is there
        after a while has all problems."""
        plain, parts = self.chosen()
        names = [(PLAIN, plain), *((part.name, part.over(plain)) for part in parts)]
        return [
            Run(problem, name, seed, dict(part.settings), self.limits())
            for seed in range(self.seeds)
            for problem in dict.fromkeys(self.problems)
            for name, part in names
        ]

    def limits(self) -> Limits:
        """Return what every run may use."""
        return Limits(self.chosen()[0].name, self.seconds, self.steps)


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Run what is not there yet, and write tables, heat map and page into the folder ``output``.

    Raises InputError for an unknown problem, where the plain settings are refused, and for a folder of another ablation.
    """
    from cpikan.pipeline.jobs.ablation.results import write_results
    from cpikan.pipeline.jobs.ablation.table import Table

    options, how = job.part(AblateOptions), job.part(RunOptions)
    runs = options.runs()
    _check(options, runs)
    folder = Path(job.output)
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(folder / "runs.csv", options.limits(), resume=how.resume, overwrite=how.overwrite)
    done = table.keys()
    left = [one for one in runs if one.key not in done]
    _measure(left, len(runs), options.jobs, table, events)
    for row in {row["reason"]: row for row in reversed(table.rows) if row["reason"]}.values():
        events.warning(f"{row['part']} on {row['problem']} {row['status']}: {row['reason']}")
    return {
        "output": job.output,
        "already_finished": not left,
        "plain": options.plain,
        **write_results(folder, table.rows),
    }


def _check(options: AblateOptions, runs: list[Run]) -> None:
    """Raise InputError where a problem is unknown or a setting is none of a solve, before anything is run."""
    from cpikan.physics.catalogue import problem

    for name in options.problems:
        problem(name)
    for one in runs:
        one.job()


def _measure(runs: list[Run], of: int, jobs: int, table: Table, events: Events) -> None:
    """Run, and write every row as soon as it is there."""
    done = of - len(runs)
    report(events, "ablation", done, of)
    with single_threaded(), SerialExecutor() if jobs == 1 else ProcessExecutor(jobs) as workers:
        for row in workers.map(Measure(), runs):
            if row["status"] == "refused" and not row["part"]:
                raise InputError(f"plain {row['plain']} on {row['problem']}: {row['reason']}")
            table.add(row)
            done += 1
            report(events, "ablation", done, of)


VERB = Verb((AblateOptions, RunOptions), ("output",), run)
