"""A height map written again: streamed into any format of the table that has a writer."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, MapRows
from cpikan.pipeline.maps.pyramid import build_pyramid
from cpikan.storage.atomic import check_disk_space, write_json
from cpikan.storage.writers.layout import (
    QUANTITIES,
    RowAssembler,
    check_document,
    document_path,
    open_writer,
    output_paths,
    required_bytes,
)


def save_map(height_map: HeightMap, path: Path, *, overwrite: bool = False) -> None:
    """Write heights, cut and levelled as the map says, and the other quantities it stores, a band at a time.

    Pixels outside the aperture get the value of "nothing measured" in every quantity. The document beside the output is
    that of the map, with ``aperture``, ``removed`` and
    ``filters``. Raises InputError when the output exists (without ``overwrite``) or
    is the map itself, for a suffix that cannot be written, and for too little disk.
    """
    names = tuple(name for name in QUANTITIES if name in height_map.arrays)
    there = [final for final in output_paths(path) if final.exists()]
    if path.resolve() == height_map.path.resolve():
        raise InputError(f"output {path} is the map itself: choose another name")
    if there and not overwrite:
        raise InputError(f"output {there[0]} exists: say overwrite to replace it, or choose another name")
    own = document_path(height_map.path)
    shared = own.exists() and document_path(path).resolve() == own.resolve()
    if not shared:
        check_document(path)
    elif height_map.aperture is not None or height_map.removed or height_map.filters:
        raise InputError(
            f"{path.name} would share {document_path(path).name} with {height_map.path.name}, which is neither cut nor "
            "levelled: choose another stem"
        )
    check_disk_space(path, required_bytes(path, height_map.shape, names))
    attributes = {key: height_map.document.get(key, {}) for key in ("acquisition", "settings")}
    attributes["pixel_um"] = height_map.pixel_um
    kinds = {name: QUANTITIES[name].dtype for name in names}
    with closing(open_writer(path, height_map.shape, kinds, attributes=attributes, resume=False)) as writer:
        assembler, rows = RowAssembler(writer, height_map.shape), MapRows(height_map)
        for band in rows.bands:
            assembler.write(band.start, {name: _rows(rows, name, band) for name in names})
        build_pyramid(writer)
        for final in there:
            shutil.rmtree(final) if final.is_dir() else final.unlink()
        writer.finish()
    if not shared:  # one document says the same of both
        write_json(document_path(path), _document(height_map))


def _rows(rows: MapRows, name: str, band: Any) -> np.ndarray:
    found = np.array(rows.read(name, band), QUANTITIES[name].dtype)
    aperture = rows.map.aperture
    if aperture is not None:
        outside = aperture.rows(band.start, band.stop, found.shape[1]) == 0
        found[outside] = QUANTITIES[name].fill
    return found


def _document(height_map: HeightMap) -> dict[str, Any]:
    """Collect what is known of the map, without the plan of the run that made it: that plan is not of this file."""
    known = {key: value for key, value in height_map.document.items() if key != "plan"}
    if height_map.aperture is not None:
        known["aperture"] = height_map.aperture.identity
    if height_map.removed:
        known["removed"] = list(height_map.removed)
    if height_map.filters:
        known["filters"] = [one.identity for one in height_map.filters]
    return known
