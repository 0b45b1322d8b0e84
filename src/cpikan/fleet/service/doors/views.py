"""Doors to pages: the jobs at a glance, the doors in words, and each map in the viewer."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from cpikan.errors import InputError
from cpikan.fleet.service.described import described
from cpikan.fleet.service.doors.answers import problems
from cpikan.fleet.service.serving import Served, Serving
from cpikan.fleet.service.shown_maps import split
from cpikan.version import VERSION
from cpikan.viewer.showing import TOKEN_HEADER, Reply, Showing

_MOST_JOBS = 100
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def _answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of the viewer: of any kind, refusals in plain words."""
    words = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return {200: {"content": {"*/*": {}}}, **{code: told | words for code, told in problems(*codes).items()}}


router = APIRouter(tags=["pages"])


@router.get("/", response_class=HTMLResponse, responses=problems(401, 403))
def jobs_page(service: Served) -> HTMLResponse:
    """Show the newest jobs, how far they are, and where their maps can be looked at."""
    jobs = [service.told(job) for job in service.jobs.listed(None, _MOST_JOBS)]
    return _shown("jobs.html", jobs=jobs, counts=service.jobs.counts(), failure=service.jobs.failure)


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
def doors_page(request: Request, service: Served) -> HTMLResponse:
    """Show what each door takes and answers: FastAPI's own page takes its script from a server outside."""
    rooms = described(request.app.openapi())
    return _shown("doors.html", rooms=rooms, version=VERSION, token=bool(service.access.token))


@router.get("/view/{path:path}", response_class=Response, responses=_answers(400, 401, 403, 404, 410))
def view(path: str, request: Request, service: Served) -> Response:
    """Show a map (``MAP.zarr/``), or two to compare (``MAP.zarr,OTHER.zarr/``), and what their page asks for."""
    if split(path) is None and split(f"{path}/") is not None:  # what the page asks for lies below it
        return RedirectResponse(f"{request.url.path}/")
    page, rest = _page(path, service)
    return _sent(page.get(rest, request.url.query))


@router.post("/view/{path:path}", response_class=Response, responses=_answers(400, 401, 403, 404, 410, 413))
async def ask(path: str, request: Request, service: Served) -> Response:
    """Keep notes and masks, filter heights or make a report: for the page itself, which is told a token."""
    body = await request.body()
    page, rest = await run_in_threadpool(_page, path, service)
    return _sent(await run_in_threadpool(page.post, rest, request.headers.get(TOKEN_HEADER, ""), body))


def _page(path: str, service: Serving) -> tuple[Showing, str]:
    names, rest = split(path) or ("", "")
    try:
        if names:
            return service.shown.page(names), rest
    except FileNotFoundError:
        pass
    except InputError as failure:
        raise HTTPException(410, str(failure)) from failure
    raise HTTPException(404, "there is no such map")


def _sent(reply: Reply) -> Response:
    if reply.parts is not None:
        return StreamingResponse(map(bytes, reply.parts), reply.status, reply.headers)
    return Response(bytes(reply.body), reply.status, reply.headers)


def _shown(name: str, **values: Any) -> HTMLResponse:
    """Fill one of the pages, which load nothing."""
    page = _pages().get_template(name).render(**values)
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"})


@cache
def _pages() -> Environment:
    loader = PackageLoader("cpikan.fleet.service", "pages")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
