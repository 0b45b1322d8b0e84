"""The verb ``worker``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpikan.cli.until_stopped import until_stopped
from cpikan.cli.verb import CommandVerb, Place
from cpikan.fleet.worker import WorkerOptions
from cpikan.streaming.run_log import heard


def _run(places: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    from cpikan.fleet.worker import run_worker

    with until_stopped() as line, heard(line) as told:
        return run_worker(places["address"], WorkerOptions(**settings), told)


def _tell(result: dict[str, Any]) -> str:
    return f"workers    {result['workers']} of {result['address']}, started {result['starts']} times"


VERB = CommandVerb(
    (Place("address", "ADDRESS", "address of a Dask scheduler, such as tcp://host:8786"),),
    (WorkerOptions,),
    _run,
    _tell,
)
