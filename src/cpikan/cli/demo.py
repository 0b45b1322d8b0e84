"""The verb ``demo``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.cli import evaluate, reconstruct
from cpikan.cli.verb import OUTPUT, CommandVerb, Place
from cpikan.option import option


@dataclass(frozen=True)
class DemoOptions:
    small: bool = option(False, "an eighth of 9344 x 7000 on a side")
    overwrite: bool = option(False, "replace what is in the folder")


def _run(places: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    from cpikan.report.demo import run_demo

    options = DemoOptions(**settings)
    return run_demo(places["output"], small=options.small, overwrite=options.overwrite)


def _tell(result: dict[str, Any]) -> str:
    return (
        f"{reconstruct.tell(result['reconstruct'])}\n{evaluate.tell(result['evaluate'])}\nreport     {result['report']}"
    )


VERB = CommandVerb(
    (Place("output", "DIR", "folder to write (default: demo)", OUTPUT, default="demo"),), (DemoOptions,), _run, _tell
)
