"""What the doors of a service have in common: its jobs, its folder, and what it says of a job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from cpikan.fleet.batch import MAPS
from cpikan.fleet.service.access import Access
from cpikan.fleet.service.doors.answers import JobAnswer
from cpikan.fleet.service.jobs import Job, Jobs
from cpikan.fleet.service.shown_maps import ShownMaps


@dataclass(frozen=True)
class Serving:
    """A service that runs in ``folder``; its maps end in ``suffix``, its rows are in ``database``."""

    jobs: Jobs
    folder: Path
    database: str
    access: Access
    suffix: str
    shown: ShownMaps

    def job(self, number: str) -> Job:
        """Find a job; HTTPException 404 where there is none."""
        return known(self.jobs.get(number))

    def told(self, job: Job) -> JobAnswer:
        """Say of a job what those may know who ask for it."""
        keep = {name: getattr(job, name) for name in JobAnswer.model_fields if hasattr(job, name)}
        file, progress = f"{job.name}{self.suffix}", self.jobs.progress(job)
        shows = job.state == "done" or (job.state == "running" and self.shown.there(file))
        return JobAnswer(
            **keep,
            stage=progress.stage,
            share=progress.share,
            map=f"/{MAPS}/{file}" if job.state == "done" else None,
            view=f"/view/{file}/" if shows else None,
        )


def known(job: Job | None) -> Job:
    """Pass a job on; HTTPException 404 where there is none."""
    if job is None:
        raise HTTPException(404, "there is no such job")
    return job


def _of(request: Request) -> Serving:
    found: Serving = request.app.state.serving
    return found


Served = Annotated[Serving, Depends(_of)]  # what every door is given
