"""What is done with one stack, in whatever process: frames to a map, its figures; all of it plain data in and out."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cpikan.errors import Busy, InputError, ResumeError
from cpikan.fleet.figures import figures_of
from cpikan.fleet.progress import ProgressFile, progress_path
from cpikan.messages import one_line
from cpikan.streaming.events import Silent
from cpikan.version import VERSION

_BUSY_S = 2.0
# refused: the stack itself is bad and will be; failed: another try may help; crowded: it needs more memory than it was given;
# busy: another process is at its map
State = Literal["done", "unchanged", "refused", "failed", "crowded", "busy"]


@dataclass(frozen=True)
class WaferTask:
    """One stack: ``source`` to the map ``output``, with a page where there is a ``report``, by the tables of a recipe.

    ``threads`` are those of the task, ``memory_mib`` what it may take (None: anything). ``stamp`` is that of the frames when
    they were done, empty where they were not: unchanged frames are not looked at again. ``anew``: whatever map is there is
    made again. ``tells``: how far it is stands in a file beside the map meanwhile.
    """

    name: str
    source: str
    output: str
    reconstruct: dict[str, Any]
    evaluate: dict[str, Any] | None = None
    wafer: dict[str, Any] | None = None
    report: str = ""
    threads: int = 1
    memory_mib: float | None = None
    stamp: str = ""
    anew: bool = False
    tells: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a stack; a ``reason`` of one line where it was not done."""

    name: str
    state: State
    reason: str = ""
    memory_mib: float = 0.0
    disk_bytes: int = 0
    stamp: str = ""
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_table(self) -> dict[str, Any]:
        """Convert to plain data."""
        return asdict(self)


class _Heard(Silent):
    """Warnings of the jobs, once each; how far they are goes into a file, where there is one."""

    def __init__(self, file: ProgressFile | None) -> None:
        self.warnings: list[str] = []
        self._file = file

    def progress(self, stage: str, done: float, of: float, **figures: float) -> None:
        if self._file is not None:
            self._file.progress(stage, done, of)

    def warning(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def do_wafer(table: dict[str, Any]) -> dict[str, Any]:
    """Do one task, given and answered as plain data; whatever goes wrong is an outcome, no exception.

    What ends a process elsewhere (SystemExit, KeyboardInterrupt raised by a library) must not end one that serves many
    stacks.
    """
    task = WaferTask(**table)
    started, clock = datetime.now(UTC), time.perf_counter()
    try:
        found = _done(task)
    except Busy as failure:
        time.sleep(_BUSY_S)  # a worker that was cut off, or of a service that was killed, may not have ended yet
        found = Outcome(task.name, "busy", one_line(str(failure)))
    except InputError as failure:
        found = Outcome(task.name, "refused", one_line(str(failure)))
    except BaseException as failure:
        found = Outcome(task.name, "failed", one_line(f"{type(failure).__name__}: {failure}"))
    times = {"started": _iso(started), "ended": _iso(datetime.now(UTC)), "seconds": time.perf_counter() - clock}
    return found.to_table() | times


def _done(task: WaferTask) -> Outcome:
    from cpikan.pipeline.jobs.job import Job
    from cpikan.pipeline.jobs.verbs.reconstruct import settings_of
    from cpikan.pipeline.reconstruction.plan import estimate_run
    from cpikan.pipeline.stacks.acquisition_file import AcquisitionFlags
    from cpikan.pipeline.stacks.frame_flags import FrameFlags
    from cpikan.pipeline.stacks.stack import open_stack
    from cpikan.storage.writers.layout import document_path

    job = Job("reconstruct", task.source, task.output, {**task.reconstruct, "threads": task.threads})
    with open_stack(task.source, **{**job.given(AcquisitionFlags), **job.given(FrameFlags)}) as stack:
        stamp = stack.stamp() or ""
        if task.stamp and stamp == task.stamp and document_path(Path(task.output)).exists():
            return Outcome(task.name, "unchanged", stamp=stamp)
        takes = estimate_run(stack, settings_of(job), task.output)
    memory, disk = float(takes["memory_mib"]), _disk_bytes(takes, task.output)
    if task.memory_mib is not None and memory > task.memory_mib:
        return Outcome(task.name, "crowded", f"needs {memory:.0f} MiB", memory, disk)
    after = {name: table for name, table in (("evaluate", task.evaluate), ("wafer", task.wafer)) if table is not None}
    file = None
    if task.tells:
        file = ProgressFile(progress_path(Path(task.output)), [*takes["stages"], "pyramid", *after])
    events = _Heard(file)
    try:
        summary = _reconstructed(job, task, events)
        figures = figures_of("reconstruct", {k: v for k, v in summary.items() if k not in _COSTS})
        for verb, settings in after.items():
            figures |= figures_of(verb, _run(Job(verb, task.output, settings=settings), events))
    finally:
        if file is not None:
            file.close()
    return Outcome(
        task.name,
        "done",
        "",
        memory,
        disk,
        stamp,
        facts=_facts(summary, bool(task.reconstruct.get("anonymous"))),
        figures=figures,
        warnings=events.warnings,
    )


# of the machine, not of the wafer
_COSTS = (
    *(
        "seconds",
        "seconds_hash",
        "seconds_start",
        "seconds_read",
        "seconds_calibrate",
        "seconds_demodulate",
        "seconds_orders",
    ),
    *("seconds_refine", "seconds_write", "megapixels_per_second", "peak_device_mib", "peak_anonymous_mib", "band_rows"),
)


def _run(job: Any, events: Any) -> dict[str, Any]:
    from cpikan.pipeline.jobs.job import run

    return run(job, events)


def _reconstructed(job: Any, task: WaferTask, events: Any) -> dict[str, Any]:
    """Reconstruct, going on with what an earlier try left; what other frames or settings left is made anew."""
    from dataclasses import replace

    settings = dict(job.settings) | ({"report": task.report} if task.report else {})
    try:
        if task.anew:
            return _run(replace(job, settings={**settings, "overwrite": True}), events)
        return _run(replace(job, settings={**settings, "resume": True}), events)
    except ResumeError:
        return _run(replace(job, settings={**settings, "overwrite": True}), events)


def _facts(summary: dict[str, Any], anonymous: bool) -> dict[str, Any]:
    """Collect what a row of results says of a run beside its figures."""
    return {
        "frames_sha256": summary.get("frames_sha256"),
        "method": ",".join(summary.get("methods_used") or ()),
        "run_seconds": summary.get("seconds"),
        "version": VERSION,
        "host": None if anonymous else platform.node(),
        "process": os.getpid(),
    }


def _disk_bytes(takes: dict[str, Any], output: str) -> int:
    """Add what the map and the scratch arrays take; of the kinds of .npy output the largest."""
    kind = Path(output).suffix.lstrip(".")
    return max(size for name, size in takes["disk_bytes"].items() if name.startswith(kind)) + int(
        takes["scratch_bytes"]
    )


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
