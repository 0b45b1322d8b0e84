"""The verb ``watch``."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from cpikan.cli.verb import OUTPUT, CommandVerb, Place
from cpikan.fleet.watch import WatchOptions
from cpikan.streaming.events import ProgressLine


class _UntilStopped(ProgressLine):
    """Events that want no more once somebody asked the process to end."""

    stopped = False

    def cancelled(self) -> bool:
        return self.stopped


@contextmanager
def _stopped_by_signals(line: _UntilStopped) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the watch after what it does at the moment; a second one ends it at once."""

    def stop(number: int, frame: object) -> None:
        if line.stopped:
            raise KeyboardInterrupt
        line.stopped = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(places: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    from cpikan.fleet.watch import run_watch

    with closing(_UntilStopped("wafers", 1.0)) as line, _stopped_by_signals(line):
        return run_watch(places["folder"], places["output"], WatchOptions(**settings), line, shlex.join(sys.argv))


def _tell(result: dict[str, Any]) -> str:
    latency = result["latency_s"]
    late = "" if latency is None else f", within {latency:.1f} s of being whole (95 %)"
    lines = [f"wafers     {result['done']} done, {result['failed']} given up{late}", f"results    {result['results']}"]
    return "\n".join(lines)


VERB = CommandVerb(
    (
        Place("folder", "DIR", "folder that stacks arrive in"),
        Place("output", "OUT", "folder of maps, results and ledger", OUTPUT),
    ),
    (WatchOptions,),
    _run,
    _tell,
    code=lambda result: int(bool(result["failed"])),
)
