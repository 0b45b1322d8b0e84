"""The verb ``batch``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from cpikan.cli.verb import OUTPUT, CommandVerb, Place
from cpikan.fleet.run import BatchOptions
from cpikan.streaming.events import ProgressLine
from cpikan.streaming.run_log import heard

_SHOWN = 10  # stacks that were given up


def _run(places: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    from cpikan.fleet.run import run_batch

    with closing(ProgressLine("wafers", 1.0)) as line, heard(line) as told:
        return run_batch(places["sources"], places["output"], BatchOptions(**settings), told, shlex.join(sys.argv))


def _tell(result: dict[str, Any]) -> str:
    errors = result["errors"]
    lines = [f"given up   {error['source']}: {error['reason']}" for error in errors[:_SHOWN]]
    if len(errors) > _SHOWN:
        lines.append(f"given up   {len(errors) - _SHOWN} more: failed.json")
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in result["verdicts"].items())
    lines.append(f"wafers     {result['done']} of {result['wafers']} done, {result['resumed']} of them before")
    lines += [f"limits     {verdicts}"] if verdicts else []
    return "\n".join([*lines, f"results    {result['results']}"])


VERB = CommandVerb(
    (
        Place("sources", "SOURCE", "stacks, folders of stacks, patterns of names, lists (.txt, .csv)", many=True),
        Place("output", "DIR", "folder of maps, results and ledger", OUTPUT),
    ),
    (BatchOptions,),
    _run,
    _tell,
    code=lambda result: int(bool(result["failed"] or result["missed_limits"])),
)
