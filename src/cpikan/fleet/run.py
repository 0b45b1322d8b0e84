"""The whole of a batch: its folder, its ledger, an engine, and what is written at its end."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.fleet.batch import Batch, BatchSettings
from cpikan.fleet.delivery import Delivery
from cpikan.fleet.engines.engine import Engine
from cpikan.fleet.engines.serial import SerialEngine
from cpikan.fleet.ledger import DEAD, DONE, Ledger
from cpikan.fleet.limits import FAIL, Limits
from cpikan.fleet.recipe import Recipe
from cpikan.fleet.sources import find_sources
from cpikan.option import option
from cpikan.storage.atomic import write_json
from cpikan.streaming.events import Events, note
from cpikan.streaming.run_log import record

FAILED, RESULTS = "failed.json", "results.sqlite"


@dataclass(frozen=True)
class RunningOptions:
    """What is done with stacks, and by whom; None means what fits this machine."""

    recipe: str | None = option(None, "what is done with each stack, and what its figures may be", metavar="FILE.toml")
    limits: str | None = option(None, "limits of figures, instead of those of the recipe", metavar="FILE.toml")
    workers: int | None = option(
        None, "processes of this machine (default: one per core; 0: this process alone)", metavar="N"
    )
    scheduler: str | None = option(None, "address of a Dask scheduler instead of workers here", metavar="ADDRESS")
    jobqueue: str | None = option(None, "workers as jobs of SLURM, as this file says", metavar="SLURM.toml")
    threads: int = option(1, "threads of each task", metavar="N")
    memory: float | None = option(None, "GiB for all that runs at once (default: most of what is free)", metavar="GIB")
    attempts: int = option(3, "how often a stack is tried whose task fails or dies", metavar="N")
    limit: float = option(3600.0, "seconds that one attempt at a stack may take", metavar="S")
    database: str | None = option(
        None, "where rows of results go: a file of SQLite, or postgresql://... (default: results.sqlite)", metavar="URL"
    )

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("threads", 1), ("attempts", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value <= 1000:
                raise InputError(f"--{name} {value}: give {least} to 1000")
        if not 0 < self.limit < 1e9:
            raise InputError(f"--limit {self.limit:g}: give seconds, such as 3600")
        if self.memory is not None and not 0 < self.memory < 1e6:
            raise InputError(f"--memory {self.memory:g}: give GiB, such as 8")
        asked = [name for name in ("workers", "scheduler", "jobqueue") if getattr(self, name) is not None]
        if len(asked) > 1:
            raise InputError(f"--{asked[0]} and --{asked[1]} exclude each other: a cluster has workers of its own")
        if self.jobqueue is not None and self.memory is not None:
            raise InputError("--jobqueue and --memory exclude each other: the memory of a job stands in its file")

    def settings(self, command: str) -> BatchSettings:
        """Make the settings of a batch."""
        memory = None if self.memory is None else self.memory * 1024
        return BatchSettings(self.attempts, self.threads, memory, self.limit, command)


@dataclass(frozen=True)
class BatchOptions(RunningOptions):
    """What becomes of a batch that is there."""

    resume: bool = option(False, "go on with a batch; what is done is passed over")
    overwrite: bool = option(False, "do all anew in a folder that holds a batch")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite exclude each other: give one of them")


def run_batch(
    given: Sequence[str], folder: str | Path, options: BatchOptions, events: Events, command: str = ""
) -> dict[str, Any]:
    """Do every stack that ``given`` mean (`find_sources`) into ``folder`` and sum up.

    Maps go into ``folder/maps``, pages into ``reports``, rows of results into the database, stacks that were given up into
    failed.json. Raises InputError for a recipe, limits or stacks that do not serve, and `Cancelled` where the events want no
    more; what is done stays, and rows of it are delivered all the same.
    """
    recipe = recipe_of(options)
    sources, place = find_sources(given, recipe.identity, recipe.pattern), Path(folder)
    where = options.database or str(place / RESULTS)
    settings = replace(options.settings(command), anew=options.overwrite)
    with (
        closing(Ledger.open(place, recipe, resume=options.resume, overwrite=options.overwrite)) as ledger,
        closing(engine_of(options, len(sources), events)) as engine,
    ):
        delivery = Delivery(where, events)
        batch = Batch(place, recipe, ledger, engine, settings, lambda row: told_of(row, delivery, events))
        try:
            batch.run(sources, events)
        finally:
            rows = batch.rows()
            errors = write_failed(place, rows)
            delivery.close(rows)
    warnings = recipe.limits.strangers(batch.measured()) if rows else []
    for warning in warnings:
        events.warning(warning)
    return {**_counts(rows), "resumed": batch.unchanged, "errors": errors, "warnings": warnings, "results": where}


def told_of(row: dict[str, Any], delivery: Delivery, events: Events) -> None:
    """Send a row on its way, and into the log."""
    delivery.offer(row)
    keep = ("name", "source", "state", "reason", "seconds", "verdict", "frames_sha256")
    record(events, "wafer", **{key: row[key] for key in keep})


def recipe_of(options: RunningOptions) -> Recipe:
    """Read the recipe, with the limits of a file of their own where there is one."""
    recipe = Recipe() if options.recipe is None else Recipe.from_file(options.recipe)
    return recipe if options.limits is None else recipe.limited(Limits.from_file(options.limits))


def engine_of(options: RunningOptions, tasks: int | None, events: Events) -> Engine:
    """Start the workers that are asked for, no more than there are tasks; without Dask one process, and that is said."""
    if options.scheduler is not None:
        from cpikan.fleet.engines.dask import DaskEngine

        return DaskEngine.connected(options.scheduler)
    if options.jobqueue is not None:
        from cpikan.fleet.engines.dask import DaskEngine
        from cpikan.fleet.engines.slurm import SlurmJobs

        return DaskEngine.queued(SlurmJobs.from_file(options.jobqueue), options.threads)
    wanted = options.workers
    if wanted is None and importlib.util.find_spec("distributed") is None:
        note(events, "one stack at a time: several workers need pip install 'scaled-cpikan[cluster]'")
        wanted = 0
    if wanted == 0:
        return SerialEngine()
    from cpikan.fleet.engines.dask import DaskEngine

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = wanted or max(1, cores // options.threads)
    return DaskEngine.local(workers if tasks is None else min(workers, max(1, tasks)), options.threads)


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    done = sum(row["state"] == DONE for row in rows)
    verdicts = [row["verdict"] for row in rows if row["verdict"] is not None]
    return {
        "wafers": len(rows),
        "done": done,
        "failed": len(rows) - done,
        "verdicts": {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)},
        "missed_limits": verdicts.count(FAIL),
    }


def write_failed(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Write the list of stacks that were given up, with the reason of each, and return it."""
    errors = [{"source": row["source"], "reason": row["reason"]} for row in rows if row["state"] == DEAD]
    write_json(folder / FAILED, {"errors": errors})
    return errors
