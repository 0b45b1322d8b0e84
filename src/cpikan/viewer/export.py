"""A map and the page in a folder: for any static web server, and to be opened from disk."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.atomic import check_disk_space
from cpikan.streaming.events import Events, Progress
from cpikan.viewer.exhibit import Exhibit
from cpikan.viewer.levels import CHUNK
from cpikan.viewer.showing import catalogue


def export_page(
    exhibits: Sequence[Exhibit], folder: Path, *, overwrite: bool = False, progress: bool | Events = False
) -> None:
    """Write the page, what it says of the maps, and every tile of every level as a file of raw little-endian numbers.

    A page that is opened from disk may not read files: ``overview.js`` holds the coarsest level of each map for it, and it
    asks for the folder when more is wanted. Raises InputError for a folder that exists (without ``overwrite``) and too little
    disk.
    """
    if folder.exists() and not overwrite:
        raise InputError(f"export {folder} exists: say --overwrite to replace it, or choose another name")
    tiles = [(number, *place) for number, exhibit in enumerate(exhibits) for place in _tiles(exhibit)]
    sizes = (np.dtype(exhibits[number].describe()["quantities"][name]["type"]).itemsize for number, name, *_ in tiles)
    check_disk_space(folder, CHUNK * CHUNK * sum(sizes))
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for entry in (files("cpikan.viewer") / "page").iterdir():
        (partial / entry.name).write_bytes(entry.read_bytes())
    (partial / "maps.json").write_bytes(catalogue(exhibits))
    overview: dict[str, str] = {}
    with Progress("export", len(tiles), 1, progress) as bar:
        for number, name, level, row, column in tiles:
            path = f"maps/{number}/{name}/{level}/c/{row}/{column}"
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            content = exhibits[number].tile(name, level, row, column).tobytes()
            (partial / path).write_bytes(content)
            if level == len(exhibits[number].shapes()) - 1:
                overview[path] = base64.b64encode(content).decode()
            bar.advance(1)
    told = json.dumps({"catalogue": json.loads(catalogue(exhibits)), "tiles": overview}, allow_nan=False)
    (partial / "overview.js").write_text(f"window.cpikanOverview = {told};\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _tiles(exhibit: Exhibit) -> Iterator[tuple[str, int, int, int]]:
    for name in exhibit.quantities:
        for level, (height, width) in enumerate(exhibit.shapes()):
            for row in range(-(-height // CHUNK)):
                for column in range(-(-width // CHUNK)):
                    yield name, level, row, column
