"""A height map written again: streamed into any format of the table that has a writer or an exporter."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, MapRows
from cpikan.pipeline.maps.pyramid import build_pyramid
from cpikan.storage.atomic import check_disk_space, full_disk_named, refuse_link, sync_path, write_json
from cpikan.storage.formats import Format, format_of, require_format, suffixes_of
from cpikan.storage.instruments.content import MapContent
from cpikan.storage.writers.layout import (
    QUANTITIES,
    RowAssembler,
    check_document,
    document_path,
    open_writer,
    output_paths,
    partial_of,
    required_bytes,
)
from cpikan.streaming.events import Events, Progress
from cpikan.units import pixel_aspect


@dataclass(frozen=True)
class Saved:
    """What became of a map: its ``valid`` pixels, what the format could not hold by name, and both in words."""

    valid: int
    lost: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


def save_map(height_map: HeightMap, path: Path, *, overwrite: bool = False, progress: bool | Events = False) -> Saved:
    """Write heights, cut and levelled as the map says, and what else the format holds, a band at a time.

    Pixels outside the aperture get the value of "nothing measured" in every quantity. The document beside an output of ours
    is that of the map, with ``aperture``, ``removed`` and ``filters``; a format of heights alone has none. Raises InputError
    when the output exists (without ``overwrite``) or is the map itself, for a suffix that cannot be written, and for too
    little disk.
    """
    if path.resolve() == height_map.path.resolve():
        raise InputError(f"output {path} is the map itself: choose another name")
    known = format_of(path)
    if known is not None and known.exporter is not None:
        return _export(height_map, path, known, overwrite, progress)
    if known is None or known.writer is None:
        raise _unwritable(path)
    return _write(height_map, path, overwrite, progress)


def _unwritable(path: Path) -> InputError:
    try:
        require_format(path, "exporter", f"output {path.name!r}")
    except InputError as failure:
        told = str(failure).rsplit(": allowed are ", 1)[0]
        return InputError(f"{told}: allowed are {', '.join(suffixes_of('writer', 'exporter'))}")
    raise AssertionError(f"{path} has an exporter")


def _refuse_existing(paths: list[Path], overwrite: bool) -> list[Path]:
    there = [final for final in paths if final.exists()]
    if there and not overwrite:
        raise InputError(f"output {there[0]} exists: say overwrite to replace it, or choose another name")
    return there


def _write(height_map: HeightMap, path: Path, overwrite: bool, progress: bool | Events) -> Saved:
    names = tuple(name for name in QUANTITIES if name in height_map.arrays)
    there = _refuse_existing(output_paths(path), overwrite)
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
    valid = 0
    with (
        closing(open_writer(path, height_map.shape, kinds, attributes=attributes, resume=False)) as writer,
        Progress("convert", *height_map.shape, progress) as bar,
    ):
        assembler, rows = RowAssembler(writer, height_map.shape), MapRows(height_map)
        for band in rows.bands:
            found = {name: _rows(rows, name, band) for name in names}
            valid += int(np.count_nonzero(np.isfinite(found["height_nm"])))
            assembler.write(band.start, found)
            bar.advance(band.rows)
        build_pyramid(writer)
        for final in there:
            shutil.rmtree(final) if final.is_dir() else final.unlink()
        writer.finish()
    if not shared:  # one document says the same of both
        write_json(document_path(path), _document(height_map))
    return Saved(valid)


def _export(height_map: HeightMap, path: Path, known: Format, overwrite: bool, progress: bool | Events) -> Saved:
    """Write a format of heights alone: beside its name, then in place of what was there."""
    _refuse_existing([path], overwrite)
    refuse_link(path)
    if not path.parent.is_dir():
        raise InputError(f"folder {path.parent} of the output {path.name} does not exist: create it first")
    assert known.exporter is not None
    assert known.bytes_for is not None, "every format that is written says its size"
    needed = known.bytes_for(height_map.shape, 8)
    check_disk_space(path, needed)
    counted: dict[int, int] = {}

    def bands() -> Iterator[tuple[int, np.ndarray]]:
        rows = MapRows(height_map, "convert", progress=progress)
        for band, stored in rows.heights():
            heights = np.array(stored, np.float64)
            heights[np.isinf(heights)] = np.nan
            counted[band.start] = int(np.count_nonzero(~np.isnan(heights)))
            yield band.start, heights

    content = MapContent(
        path.name, height_map.shape, bands, height_map.document.get("acquisition") or {}, _fringe_nm(height_map)
    )
    partial = partial_of(path)
    try:
        with full_disk_named(path, needed):
            known.exporter(content, partial)
            sync_path(partial)
        os.replace(partial, path)
        sync_path(path.parent)
    finally:
        partial.unlink(missing_ok=True)
    lost = (*_lost(height_map, known), *content.lost)
    told = [f"{path.name} has no room for {', '.join(lost)}: they are left out"] if lost else []
    return Saved(sum(counted.values()), lost, (*content.warnings, *told))


def _fringe_nm(height_map: HeightMap) -> float | None:
    return height_map.fringes_nm[0] if height_map.fringes_nm else None


def _lost(height_map: HeightMap, known: Format) -> Iterator[str]:
    """Name what the map knows and the format has no room for."""
    yield from (name for name in QUANTITIES if name in height_map.arrays and name != "height_nm")
    pixel_um, waves = height_map.pixel_um, height_map.wavelengths_nm
    square = pixel_aspect(pixel_um) == 1.0
    if pixel_um is not None and ("pixel_um" not in known.holds or not (square or "aspect" in known.holds)):
        yield "pixel_um"
    held = {"wavelengths_nm"} if len(waves) > 1 else {"wavelengths_nm", "wavelength_nm"}
    if waves and not held & known.holds:
        yield "wavelengths_nm"
    yield from (key for key in ("settings", "summary") if height_map.document.get(key))


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
