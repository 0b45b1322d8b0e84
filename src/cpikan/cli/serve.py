"""The verb ``serve``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import Any

from cpikan.cli.until_stopped import until_stopped
from cpikan.cli.verb import OUTPUT, CommandVerb, Place
from cpikan.fleet.serve import ServeOptions
from cpikan.streaming.run_log import heard


def _run(places: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    from cpikan.fleet.serve import run_serve

    with until_stopped() as line, heard(line) as told:
        return run_serve(places["output"], ServeOptions(**settings), told, shlex.join(sys.argv))


def _tell(result: dict[str, Any]) -> str:
    counts = (
        f"{result['done']} done, {result['failed']} given up, {result['cancelled']} cancelled, {result['left']} left"
    )
    return f"wafers     {counts}\nresults    {result['results']}"


VERB = CommandVerb(
    (Place("output", "OUT", "folder of maps, results, queue and ledger", OUTPUT),), (ServeOptions,), _run, _tell
)
