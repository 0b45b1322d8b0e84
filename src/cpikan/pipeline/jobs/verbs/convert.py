"""The verb ``convert``: the map ``source`` into the format of ``output``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.option import option
from cpikan.pipeline.jobs.job import Job, Verb
from cpikan.streaming.events import Events


@dataclass(frozen=True)
class ConvertOptions:
    """What may become of an output that exists."""

    overwrite: bool = option(False, "replace an output that exists")


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Convert the map and return what was written and what was lost."""
    from cpikan.pipeline.maps.convert import convert_map

    options = job.part(ConvertOptions)
    result = convert_map(job.source, job.output, overwrite=options.overwrite, progress=events)
    for warning in result["warnings"]:
        events.warning(warning)
    return result


VERB = Verb((ConvertOptions,), ("source", "output"), run)
