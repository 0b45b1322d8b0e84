"""A watched folder: stacks that a tool drops are measured as they come, until somebody ends it."""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.fleet.arrivals import Arrivals
from cpikan.fleet.batch import Batch
from cpikan.fleet.delivery import Delivery
from cpikan.fleet.ledger import DEAD, DONE, NAME, Ledger
from cpikan.fleet.run import RESULTS, RunningOptions, engine_of, recipe_of, told_of, write_failed
from cpikan.messages import say
from cpikan.option import option
from cpikan.storage.atomic import write_text
from cpikan.streaming.events import Events

METRICS = "metrics.prom"
_LOOK_S = 0.25
_METRICS_S = 5.0
_LATENCIES = 1000  # of the last stacks


@dataclass(frozen=True)
class WatchOptions(RunningOptions):
    """How a folder is watched."""

    settle: float = option(2.0, "a stack is whole when its files have not changed for so many seconds", metavar="S")
    marker: str | None = option(
        None, "a stack is whole when a file of this name lies in it, or NAME.MARKER beside it", metavar="MARKER"
    )
    once: bool = option(False, "end when all that is there is done")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.settle <= 86400:
            raise InputError(f"--settle {self.settle:g}: give 0 to 86400 seconds")


def run_watch(
    folder: str, output: str | Path, options: WatchOptions, events: Events, command: str = ""
) -> dict[str, Any]:
    """Measure the stacks that arrive in ``folder`` by the recipe, into ``output``, until the events want no more.

    What the ledger in ``output`` knows is passed over, whatever became of the process before. A stack that cannot be measured
    is given up, and taken up again when its files change. Raises InputError for settings that do not serve, a folder that is
    none, a disk or a cluster without room.
    """
    recipe, place = recipe_of(options), Path(output)
    if _within(place, Path(folder)):
        raise InputError(
            f"{output} lies in {folder}: maps would be taken for stacks that arrive; give a folder outside"
        )
    settings = options.settings(command)
    with (
        closing(Ledger.open(place, recipe, resume=(place / NAME).exists(), overwrite=False)) as ledger,
        closing(engine_of(options, None, events)) as engine,
    ):
        known = {name: entry.get("signature", "") for name, entry in ledger.entries.items()}
        arrivals = Arrivals(
            Path(folder), recipe.identity, recipe.pattern, settle_s=options.settle, marker=options.marker, known=known
        )
        delivery = Delivery(options.database or str(place / RESULTS), events)
        batch = Batch(place, recipe, ledger, engine, settings, lambda row: told_of(row, delivery, events))
        watch = _Watch(batch, ledger, place)
        say(f"cpikan: watching {folder} with {engine.about} (Ctrl-C ends it)")
        try:
            while not events.cancelled():
                watch.take(arrivals.look())
                watch.tell(arrivals.waiting)
                for name in watch.step():
                    entry = ledger.entries[name]
                    if entry["state"] == DEAD:
                        events.warning(f"{entry['source']} was given up: {entry['reason']}")
                delivery.flush_when_due()
                if options.once and not batch.left and not arrivals.waiting:
                    break
        finally:
            rows = batch.rows()
            errors = write_failed(place, rows)
            delivery.close(rows)
            watch.tell(arrivals.waiting, now=True)
    return {**watch.counts(), "errors": errors, "results": options.database or str(place / RESULTS)}


class _Watch:
    """The batch of what has arrived, with its counts and how long stacks took from their arrival."""

    def __init__(self, batch: Batch, ledger: Ledger, place: Path) -> None:
        self._batch, self._ledger, self._place = batch, ledger, place
        self._arrived: dict[str, float] = {}
        self._settled = {DONE: 0, DEAD: 0}
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._told_s = -_METRICS_S

    def take(self, sources: list[Any]) -> None:
        now = time.monotonic()
        self._arrived |= {source.name: now for source in sources}
        self._batch.add(sources)

    def step(self) -> list[str]:
        """Work for a moment; name the stacks that are settled."""
        if not self._batch.left:
            time.sleep(_LOOK_S)
            return []
        settled = self._batch.step(_LOOK_S)
        for name in settled:
            self._settled[self._ledger.entries[name]["state"]] += 1
            self._latencies.append(time.monotonic() - self._arrived.pop(name))
        return settled

    def counts(self) -> dict[str, Any]:
        return {
            "wafers": sum(self._settled.values()),
            "done": self._settled[DONE],
            "failed": self._settled[DEAD],
            "latency_s": self._latency(0.95),
        }

    def tell(self, arriving: int, *, now: bool = False) -> None:
        """Write the figures that a collector of Prometheus reads from a file, every few seconds."""
        if not now and time.monotonic() - self._told_s < _METRICS_S:
            return
        self._told_s = time.monotonic()
        lines = [
            "# TYPE cpikan_wafers_total counter",
            *(f'cpikan_wafers_total{{state="{state}"}} {count}' for state, count in self._settled.items()),
            "# TYPE cpikan_wafers_waiting gauge",
            f'cpikan_wafers_waiting{{where="arriving"}} {arriving}',
            f'cpikan_wafers_waiting{{where="queue"}} {self._batch.left}',
            "# TYPE cpikan_latency_seconds gauge",
            *(f'cpikan_latency_seconds{{quantile="{q}"}} {self._latency(q) or 0.0:.3f}' for q in (0.5, 0.95)),
        ]
        write_text(self._place / METRICS, "\n".join([*lines, ""]))

    def _latency(self, quantile: float) -> float | None:
        """Give a quantile of the seconds from whole to measured, of the last thousand stacks."""
        found = sorted(self._latencies)
        return found[min(len(found) - 1, int(quantile * len(found)))] if found else None


def _within(inner: Path, outer: Path) -> bool:
    return outer.resolve() in (inner.resolve(), *inner.resolve().parents)
