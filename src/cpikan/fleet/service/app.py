"""The doors of the service: FastAPI's application around the jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from cpikan.errors import InputError
from cpikan.fleet.batch import MAPS
from cpikan.fleet.results.store import ResultStore
from cpikan.fleet.results.table import asked_rows
from cpikan.fleet.service.access import Access
from cpikan.fleet.service.jobs import ENDED, Job, Jobs, QueueFull, Stopping
from cpikan.version import VERSION

_LOOK_S = 0.2
_MOST_ROWS = 1000
_MOST_BODY = 64 * 1024
_HERE = "the id of a job"
Text = Annotated[str, Field(min_length=1, max_length=200)]


class Submission(BaseModel):
    """A stack to measure by the recipe of the service, and who the wafer is."""

    model_config = ConfigDict(extra="forbid")
    source: Annotated[
        str, Field(min_length=1, max_length=4096, description="path below a folder that the service reads")
    ]
    lot: Text | None = None
    wafer: Text | None = None
    slot: Text | None = None
    tool: Text | None = None


class JobAnswer(BaseModel):
    """A job: its state, why it failed, and the figures of its map."""

    id: str
    name: str
    source: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    reason: str
    submitted: str
    figures: dict[str, float | None]
    warnings: list[str]
    map: str | None = Field(description="address of the map, once there is one")


class Problem(BaseModel):
    """Why a request was not served, in one sentence."""

    detail: str


def _answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem} for code in codes}


def make_app(jobs: Jobs, folder: Path, database: str, access: Access, suffix: str) -> FastAPI:
    """Make the application; maps end in ``suffix`` and lie in ``folder``."""
    app = FastAPI(
        title="cpikan", version=VERSION, summary="Frames of interferometers to height maps with an uncertainty."
    )

    def told(job: Job) -> JobAnswer:
        found = f"/maps/{job.name}{suffix}" if job.state == "done" else None
        keep = {name: getattr(job, name) for name in JobAnswer.model_fields if name != "map"}
        return JobAnswer(**keep, map=found)

    def known(job: Job | None) -> Job:
        if job is None:
            raise HTTPException(404, "there is no such job")
        return job

    @app.post("/jobs", status_code=202, responses=_answers(400, 401, 429, 503))
    def submit(asked: Submission) -> JobAnswer:
        """Accept a stack into the queue."""
        try:
            access.stack(asked.source)
            return told(jobs.submit(asked.source, asked.model_dump(exclude={"source"}, exclude_none=True)))
        except InputError as failure:
            raise HTTPException(400, str(failure)) from failure
        except QueueFull as failure:
            raise HTTPException(429, str(failure), headers={"Retry-After": str(failure.retry_s)}) from failure
        except Stopping as failure:
            raise HTTPException(503, str(failure)) from failure

    @app.get("/jobs", responses=_answers(401))
    async def listed(
        state: Literal["waiting", "running", "done", "failed", "cancelled"] | None = None,
        most: Annotated[int, Query(ge=1, le=_MOST_ROWS)] = 100,
    ) -> list[JobAnswer]:
        """List the newest jobs."""
        return [told(job) for job in jobs.listed(state, most)]

    @app.get("/jobs/{number}", responses=_answers(401, 404))
    async def status(number: str) -> JobAnswer:
        """Tell of one job."""
        return told(known(jobs.get(number)))

    @app.delete("/jobs/{number}", responses=_answers(401, 404))
    def cancel(number: str) -> JobAnswer:
        """Give a job up; one that has ended stays as it is."""
        return told(known(jobs.cancel(number)))

    @app.get("/jobs/{number}/events", responses={**_answers(401, 404), 200: {"content": {"text/event-stream": {}}}})
    async def events(number: str) -> StreamingResponse:
        """Tell of a job each time its state changes, as server-sent events, until it has ended."""
        return StreamingResponse(_events(known(jobs.get(number)), told), media_type="text/event-stream")

    @app.get("/results", responses=_answers(400, 401, 503))
    def results(
        lot: Annotated[list[str] | None, Query(max_length=50)] = None,
        verdict: Annotated[list[Literal["pass", "fail", "not measured"]] | None, Query()] = None,
        figure: Annotated[list[str] | None, Query(max_length=50)] = None,
        most: Annotated[int, Query(ge=1, le=_MOST_ROWS)] = 100,
    ) -> list[dict[str, Any]]:
        """Read rows of results, the newest last."""
        try:
            with closing(ResultStore.open(database)) as store:
                return asked_rows(store, {"lot": lot or (), "verdict": verdict or ()}, figure or (), most)
        except InputError as failure:
            raise HTTPException(400 if "unknown figure" in str(failure) else 503, str(failure)) from failure

    @app.get("/maps/{path:path}", response_class=FileResponse, responses=_answers(401, 404))
    def map_file(path: str) -> FileResponse:
        """Send a file of a map, or a range of its bytes: OME-Zarr over HTTP."""
        return FileResponse(_inside(folder / MAPS, path))

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Write the counts as Prometheus reads them."""
        return PlainTextResponse(_metrics(jobs), media_type="text/plain; version=0.0.4")

    @app.get("/healthz", responses=_answers(503))
    async def health() -> dict[str, str]:
        """Tell whether jobs are done."""
        if jobs.failure:
            raise HTTPException(503, jobs.failure)
        return {"status": "ok", "version": VERSION}

    app.add_middleware(_Door, access=access)
    return app


async def _events(job: Job, told: Callable[[Job], JobAnswer]) -> AsyncIterator[str]:
    last = ""
    while True:
        state = job.state
        if state != last:
            yield f"event: {state}\ndata: {told(job).model_dump_json()}\n\n"
            last = state
        if state in ENDED:
            return
        await asyncio.sleep(_LOOK_S)


def _inside(folder: Path, path: str) -> Path:
    """Find a file below a folder; HTTPException 404 for anything else."""
    try:
        found = (folder / path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        found = folder
    if not found.is_file() or not found.is_relative_to(folder.resolve()):
        raise HTTPException(404, "there is no such file")
    return found


def _metrics(jobs: Jobs) -> str:
    lines = ["# TYPE cpikan_jobs gauge", *(f'cpikan_jobs{{state="{state}"}} {n}' for state, n in jobs.counts().items())]
    lines += ["# TYPE cpikan_jobs_ended_total counter"]
    lines += [f'cpikan_jobs_ended_total{{state="{state}"}} {n}' for state, n in jobs.ended.items()]
    lines += ["# TYPE cpikan_up gauge", f"cpikan_up {int(not jobs.failure)}"]
    return "\n".join([*lines, ""])


Message = MutableMapping[str, Any]


class _Door:
    """What every request passes: the host it is for, its token, the size of its body."""

    def __init__(self, app: Any, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(headers, scope["path"])
        if refused is None:
            await self._app(scope, receive, send)
        else:
            code, detail = refused
            await JSONResponse({"detail": detail}, code)(scope, receive, send)

    def _refused(self, headers: dict[str, str], path: str) -> tuple[int, str] | None:
        if not self._access.serves(headers.get("host"), headers.get("origin")):
            return 403, "this service does not answer for that host or page"
        if path not in ("/healthz", "/metrics") and not self._access.knows(headers.get("authorization")):
            return 401, "give the token of this service: Authorization: Bearer TOKEN"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > _MOST_BODY or "transfer-encoding" in headers:
            return 413, f"give a body of at most {_MOST_BODY} bytes, with its length"
        return None


def openapi_text(app: FastAPI) -> str:
    """Write the description of the doors as JSON."""
    return json.dumps(app.openapi(), indent=1)
