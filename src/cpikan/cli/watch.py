"""The verb ``watch``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import Any

from cpikan.cli.until_stopped import until_stopped
from cpikan.cli.verb import OUTPUT, CommandVerb, Place
from cpikan.fleet.watch import WatchOptions
from cpikan.streaming.run_log import heard


def _run(places: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    from cpikan.fleet.watch import run_watch

    with until_stopped() as line, heard(line) as told:
        return run_watch(places["folder"], places["output"], WatchOptions(**settings), told, shlex.join(sys.argv))


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
