"""FastAPI's application: the doors of the service, and what is passed before them."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.routing import Match

from cpikan.fleet.batch import MAPS
from cpikan.fleet.service.access import Access
from cpikan.fleet.service.door import Door
from cpikan.fleet.service.doors import health, jobs, results, views
from cpikan.fleet.service.jobs import Jobs
from cpikan.fleet.service.serving import Serving
from cpikan.fleet.service.shown_maps import ShownMaps
from cpikan.version import VERSION

_ROOMS = (jobs, results, views, health)


def make_app(queue: Jobs, folder: Path, database: str, access: Access, suffix: str) -> FastAPI:
    """Make the application; maps end in ``suffix`` and lie in ``folder``."""
    app = FastAPI(
        title="cpikan",
        version=VERSION,
        summary="Frames of interferometers to height maps with an uncertainty.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.serving = Serving(queue, folder, database, access, suffix, ShownMaps(folder / MAPS))
    for room in _ROOMS:
        app.include_router(room.router)
    app.add_exception_handler(405, _not_allowed)
    app.add_middleware(Door, access=access)
    return app


async def _not_allowed(request: Request, failure: Exception) -> JSONResponse:
    """Name all methods of an address: each route knows its own alone."""
    routes = [route for room in _ROOMS for route in room.router.routes if isinstance(route, APIRoute)]
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    allowed = sorted({method for route in fitting for method in route.methods or ()})
    return JSONResponse({"detail": f"{request.method} is not for this address"}, 405, {"Allow": ", ".join(allowed)})
