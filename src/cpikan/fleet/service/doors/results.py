"""Doors to what was measured: rows of results, and the files of maps."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import FileResponse

from cpikan.errors import InputError
from cpikan.fleet.batch import MAPS
from cpikan.fleet.results.store import ResultStore
from cpikan.fleet.results.table import asked_rows
from cpikan.fleet.service.doors.answers import MOST_ROWS, problems
from cpikan.fleet.service.serving import Served

router = APIRouter(tags=["results"])


@router.get("/results", responses=problems(400, 401, 403, 503))
def results(
    service: Served,
    lot: Annotated[list[str] | None, Query(max_length=50)] = None,
    verdict: Annotated[list[Literal["pass", "fail", "not measured"]] | None, Query()] = None,
    figure: Annotated[list[str] | None, Query(max_length=50)] = None,
    most: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
) -> list[dict[str, Any]]:
    """Read rows of results, the newest last."""
    try:
        with closing(ResultStore.open(service.database)) as store:
            return asked_rows(store, {"lot": lot or (), "verdict": verdict or ()}, figure or (), most)
    except InputError as failure:
        raise HTTPException(400 if "unknown figure" in str(failure) else 503, str(failure)) from failure


@router.get(f"/{MAPS}/{{path:path}}", response_class=FileResponse, responses=problems(401, 403, 404))
def map_file(path: str, service: Served) -> FileResponse:
    """Send a file of a map, or a range of its bytes: OME-Zarr over HTTP."""
    return FileResponse(_inside(service.folder / MAPS, path))


def _inside(folder: Path, path: str) -> Path:
    """Find a file below a folder; HTTPException 404 for anything else."""
    try:
        found = (folder / path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        found = folder
    if not found.is_file() or not found.is_relative_to(folder.resolve()):
        raise HTTPException(404, "there is no such file")
    return found
