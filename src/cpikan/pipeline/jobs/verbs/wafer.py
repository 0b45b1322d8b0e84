"""The verb ``wafer``: the numbers of the wafer on the map ``source``, and a page about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.errors import InputError
from cpikan.option import option
from cpikan.pipeline.jobs.job import Job, Verb
from cpikan.pipeline.maps.wafer.settings import WaferSettings
from cpikan.streaming.events import Events


@dataclass(frozen=True)
class WaferOptions:
    """What is measured beside the front face, and where a page goes."""

    back: str | None = option(
        None,
        "map of the back face: it is mirrored and laid onto the front by edge and notch",
        metavar="MAP",
        group="second",
    )
    thickness: str | None = option(
        None, "map of the thickness on the pixels of the front map", metavar="MAP", group="second"
    )
    report: str | None = option(None, "also write a page to look at", metavar="FILE.html")

    def __post_init__(self) -> None:
        if self.back is not None and self.thickness is not None:
            raise InputError("back and thickness both say the thickness: give one of them")


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Measure the wafer and return its numbers."""
    from cpikan.pipeline.maps.height_map import open_height_map
    from cpikan.pipeline.maps.wafer.measure import wafer_numbers
    from cpikan.report.place import check_page

    options, settings = job.part(WaferOptions), job.part(WaferSettings)
    page = None if options.report is None else check_page(options.report)
    front = open_height_map(job.source)
    numbers = wafer_numbers(front, settings, back=options.back, thickness=options.thickness, progress=events)
    for warning in numbers.warnings:
        events.warning(warning)
    if page is not None:
        from cpikan.report.wafer import write_wafer_report

        write_wafer_report(page, front, numbers)
    return {**numbers.summary(), "report": None if page is None else str(page)}


VERB = Verb((WaferSettings, WaferOptions), ("source",), run)
