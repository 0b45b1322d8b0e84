"""The verb ``evaluate``: the map ``source`` against the truth, or its surface numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.pipeline.jobs.job import Job
from cpikan.pipeline.jobs.options import AreaOptions
from cpikan.pipeline.jobs.verb import Verb
from cpikan.streaming.events import Events
from cpikan.surface.form import check_form_terms


@dataclass(frozen=True)
class EvaluateOptions:
    """``truth`` is a .npy of heights in nm; without it surface numbers are measured. ``remove`` as in `check_form_terms`."""

    truth: str | None = None
    remove: str | None = None

    def __post_init__(self) -> None:
        check_form_terms(self.remove or "")


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Compare or measure and return the figures."""
    from cpikan.pipeline.maps.region import Region
    from cpikan.pipeline.stacks.mask import Circle

    options, area = job.part(EvaluateOptions), job.part(AreaOptions).open()
    region = Region(area.pupil) if isinstance(area, Circle) else Region(mask=area)
    if options.truth is not None:
        from cpikan.pipeline.maps.evaluate import evaluate

        return evaluate(job.source, options.truth, remove=options.remove or "", region=region, progress=events)
    from cpikan.pipeline.maps.surface import measure_map

    remove = "piston" if options.remove is None else options.remove
    result = measure_map(job.source, remove=remove, region=region, progress=events)
    for warning in result["warnings"]:
        events.warning(warning)
    return result


VERB = Verb(
    (EvaluateOptions, AreaOptions), ("source",), lambda job: (job.part(EvaluateOptions), job.part(AreaOptions)), run
)
