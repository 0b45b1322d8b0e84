"""FastAPI's application: the doors of the service, and what is passed before them."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from cpikan.fleet.batch import MAPS
from cpikan.fleet.service.access import Access
from cpikan.fleet.service.door import Door
from cpikan.fleet.service.doors import health, jobs, results, views
from cpikan.fleet.service.jobs import Jobs
from cpikan.fleet.service.serving import Serving
from cpikan.fleet.service.shown_maps import ShownMaps
from cpikan.version import VERSION


def make_app(queue: Jobs, folder: Path, database: str, access: Access, suffix: str) -> FastAPI:
    """Make the application; maps end in ``suffix`` and lie in ``folder``."""
    app = FastAPI(
        title="cpikan", version=VERSION, summary="Frames of interferometers to height maps with an uncertainty."
    )
    app.state.serving = Serving(queue, folder, database, access, suffix, ShownMaps(folder / MAPS))
    for room in (jobs, results, views, health):
        app.include_router(room.router)
    app.add_middleware(Door, access=access)
    return app
