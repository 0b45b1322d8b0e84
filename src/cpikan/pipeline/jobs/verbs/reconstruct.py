"""The verb ``reconstruct``: frames to a height map, and a page about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpikan.errors import InputError
from cpikan.option import option
from cpikan.pipeline.jobs.job import Job, OneAreaOptions, RunOptions, Verb
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.stacks.acquisition_file import AcquisitionFlags
from cpikan.pipeline.stacks.frame_flags import FrameFlags
from cpikan.report.place import check_page
from cpikan.storage.writers.layout import document_path, output_paths
from cpikan.streaming.events import SILENT, Events
from cpikan.streaming.ranks import Ranks, ranks_here, ranks_on_this_host
from cpikan.surface.apertures.aperture import Aperture
from cpikan.units import parse_length_nm

if TYPE_CHECKING:
    from cpikan.pipeline.maps.height_map import HeightMap


@dataclass(frozen=True)
class ReconstructOptions:
    """What a reconstruction is told beside its settings."""

    range: str | None = option(
        None, 'length of the height range, such as "27 um", centred on the data', metavar="LENGTH"
    )
    report: str | None = option(None, "also write a page to look at", metavar="FILE.html")


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Reconstruct a stack, alone or with other processes, and return the summary."""
    with ranks_here() as ranks:
        if ranks.rank:
            _reconstructed(job, SILENT, seconds_before, ranks)
            return {"rank": ranks.rank}
        page = _page(job, events)
        height_map = _reconstructed(job, events, seconds_before, ranks)
    assert height_map is not None, "the first process has the map"
    for warning in height_map.summary.get("warnings", ()):
        events.warning(warning)
    if page:
        from cpikan.report.html import write_report

        write_report(page, height_map, progress=events)
    return height_map.summary


def _reconstructed(job: Job, events: Events, seconds_before: float, ranks: Ranks) -> HeightMap | None:
    """Open the frames and do this process's share; the first one has the map."""
    from cpikan.pipeline.reconstruction.reconstruct import reconstruct_shared
    from cpikan.pipeline.stacks.stack import open_stack

    how = job.part(RunOptions)
    settings = settings_of(job, job.part(OneAreaOptions).open())
    if ranks.size > 1 and settings.threads is None:
        settings = replace(settings, threads=max(1, settings.worker_threads // ranks_on_this_host()))
    acquisition = {**job.given(AcquisitionFlags), **job.given(FrameFlags)}
    with open_stack(job.source, **acquisition) as stack:
        return reconstruct_shared(
            ranks,
            stack,
            job.output,
            settings,
            progress=events,
            resume=how.resume,
            overwrite=how.overwrite,
            seconds_before=seconds_before,
        )


def _page(job: Job, events: Events) -> Path | None:
    """Check the path of the report before the run; a file of the run's own gets no page, and that is said."""
    report, output = job.part(ReconstructOptions).report, Path(job.output)
    if not report:
        return None
    own = {path.resolve() for path in (document_path(output), *output_paths(output))}
    if Path(report).resolve() in own:
        events.warning(
            f"report {report} is a file of the output {output}: no page is written; name one such as "
            f"{output.with_suffix('.html')}"
        )
        return None
    return check_page(report)


def settings_of(job: Job, mask: Aperture | None = None) -> ReconstructSettings:
    """Read the settings of the reconstruction; the height range is text with a unit, a number of nm, or two."""
    length, range_nm = job.part(ReconstructOptions).range, job.settings.get("range_nm")
    if length is not None and range_nm is not None:
        raise InputError("range and range_nm both say the height range: leave one out")
    if length is not None:
        range_nm = parse_length_nm(length, "height range")
    elif isinstance(range_nm, list):
        range_nm = tuple(range_nm)
    made: ReconstructSettings = job.part(ReconstructSettings, range_nm=range_nm, mask=mask)
    return made


def _check(job: Job) -> None:
    job.part(RunOptions), job.part(OneAreaOptions), settings_of(job)


VERB = Verb(
    (AcquisitionFlags, FrameFlags, ReconstructSettings, OneAreaOptions, ReconstructOptions, RunOptions),
    ("source", "output"),
    run,
    _check,
)
