"""Doors to jobs: submit, follow, give up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import StreamingResponse

from cpikan.errors import InputError
from cpikan.fleet.service.doors.answers import MOST_ROWS, JobAnswer, State, Submission, problems
from cpikan.fleet.service.jobs import ENDED, Job, QueueFull, Stopping
from cpikan.fleet.service.serving import Served, Serving, known

_LOOK_S = 0.2
_STEP = 0.01  # of a stack: what is told anew

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.post("", status_code=202, responses=problems(400, 401, 403, 413, 429, 503))
def submit(asked: Submission, service: Served) -> JobAnswer:
    """Accept a stack into the queue."""
    try:
        service.access.stack(asked.source)
    except InputError as failure:
        raise HTTPException(403, str(failure)) from failure
    try:
        return service.told(service.jobs.submit(asked.source, asked.model_dump(exclude={"source"}, exclude_none=True)))
    except InputError as failure:
        raise HTTPException(400, str(failure)) from failure
    except QueueFull as failure:
        raise HTTPException(429, str(failure), headers={"Retry-After": str(failure.retry_s)}) from failure
    except Stopping as failure:
        raise HTTPException(503, str(failure)) from failure


@router.get("", responses=problems(401, 403))
def listed(
    service: Served, state: State | None = None, most: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100
) -> list[JobAnswer]:
    """List the newest jobs."""
    return [service.told(job) for job in service.jobs.listed(state, most)]


@router.get("/{number}", responses=problems(401, 403, 404))
def status(number: str, service: Served) -> JobAnswer:
    """Tell of one job."""
    return service.told(service.job(number))


@router.delete("/{number}", responses=problems(401, 403, 404))
def cancel(number: str, service: Served) -> JobAnswer:
    """Give a job up; one that has ended stays as it is."""
    return service.told(known(service.jobs.cancel(number)))


@router.get(
    "/{number}/events",
    response_class=StreamingResponse,
    responses={**problems(401, 403, 404), 200: {"content": {"text/event-stream": {}}}},
)
def events(number: str, service: Served) -> StreamingResponse:
    """Tell of a job each time its state changes or a hundredth more is done, as server-sent events, until it has ended."""
    return StreamingResponse(_events(service.job(number), service), media_type="text/event-stream")


async def _events(job: Job, service: Serving) -> AsyncIterator[str]:
    state, share, stage = "", 0.0, ""
    while state not in ENDED:
        now = await anyio.to_thread.run_sync(service.told, job)  # it looks at files
        changed = now.state != state
        if changed or now.stage != stage or (now.share or 0.0) >= share + _STEP:
            state, share, stage = now.state, now.share or 0.0, now.stage
            yield f"event: {state if changed else 'progress'}\ndata: {now.model_dump_json()}\n\n"
        else:
            await anyio.sleep(_LOOK_S)
