"""Doors for who looks after the service: counts, and whether it lives."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from fastapi.responses import PlainTextResponse

from cpikan.fleet.service.doors.answers import problems
from cpikan.fleet.service.jobs import Jobs
from cpikan.fleet.service.serving import Served
from cpikan.version import VERSION

OPEN = ("/healthz", "/metrics")  # to those without the token, too

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse, responses=problems(403))
async def metrics(service: Served) -> PlainTextResponse:
    """Write the counts as Prometheus reads them."""
    return PlainTextResponse(_metrics(service.jobs), media_type="text/plain; version=0.0.4")


@router.get("/healthz", responses=problems(403, 503))
async def health(service: Served) -> dict[str, str]:
    """Tell whether jobs are done."""
    if service.jobs.failure:
        raise HTTPException(503, service.jobs.failure)
    return {"status": "ok", "version": VERSION}


def _metrics(jobs: Jobs) -> str:
    lines = ["# TYPE cpikan_jobs gauge", *(f'cpikan_jobs{{state="{state}"}} {n}' for state, n in jobs.counts().items())]
    lines += ["# TYPE cpikan_jobs_ended_total counter"]
    lines += [f'cpikan_jobs_ended_total{{state="{state}"}} {n}' for state, n in jobs.ended.items()]
    lines += ["# TYPE cpikan_up gauge", f"cpikan_up {int(not jobs.failure)}"]
    return "\n".join([*lines, ""])
