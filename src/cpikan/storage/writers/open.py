"""The door to the writers: chosen by suffix, with the names and the sizes of what they will make."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.atomic import read_json
from cpikan.storage.formats import Format, require_format, suffixes_of
from cpikan.storage.protocols import MapWriter
from cpikan.storage.writers.layout import QUANTITIES, MapLayout, document_path, npy_path, partial_of


def open_writer(
    path: Path | str,
    shape: tuple[int, int],
    quantities: Mapping[str, np.dtype],
    *,
    attributes: Mapping[str, Any],
    resume: bool,
) -> MapWriter:
    """Open the output ``path`` for image rows of shape (H, W); the suffix chooses the format.

    ``quantities`` are height_nm and any of sigma_nm, modulation (float32), flags (uint8), component (int32), in the
    order wanted. ``attributes`` is JSON-like metadata kept inside .tif and .zarr outputs (``pixel_um`` also becomes
    their lateral scale). With ``resume`` the partial output is continued and never created or truncated: ResumeError
    when it is missing or differs; without, a partial output is made anew. Raises InputError for a bad path or quantity
    and StorageFull for lack of space.
    """
    path = Path(path)
    writer = output_format(path).writer
    assert writer is not None
    if not path.parent.is_dir():
        raise InputError(f"folder {path.parent} of the output {path.name} does not exist: create it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"folder {path.parent} is not writable: choose another place for {path.name}")
    layout = MapLayout.checked(path, shape, quantities, attributes)
    return writer(layout, resume=resume)


def output_format(path: Path | str) -> Format:
    """Find the format of an output by its suffix; InputError, listing those that can be written, for any other."""
    return require_format(Path(path), "writer", f"output {Path(path).name!r}")


def output_paths(path: Path | str, quantities: Iterable[str] | None = None) -> list[Path]:
    """List the files (the folder, for .zarr) of a finished output; by default with every quantity there may be.

    The JSON document beside them is not among them: see ``document_path``.
    """
    path = Path(path)
    names = QUANTITIES if quantities is None else quantities
    return [npy_path(path, name) for name in names] if output_format(path).beside else [path]


def check_document(path: Path | str) -> None:
    """Refuse an output whose document STEM.json is that of another output, or of something else.

    Raises InputError naming the other one: a map is measured with the pixel size and the wavelengths of its document.
    """
    path = Path(path)
    file = document_path(path)
    others = [path.with_suffix(suffix) for suffix in suffixes_of("writer") if suffix != path.suffix]
    running = next((other for other in others if other.with_name(f"{other.name}.journal").exists()), None)
    if running is not None:
        raise InputError(
            f"an unfinished run will write {file.name} for {running.name}: choose another stem for {path.name}"
        )
    if not file.exists():
        return
    document = read_json(file)
    owner = path.with_name(_owner(document) or path.name)
    if owner.name != path.name and document_path(owner) == file:
        others = [owner]
    elif owner.name == path.name and _owner(document):
        return
    there = next((other for other in others if other.exists()), None)
    if there is not None and _is_record(document):
        raise InputError(
            f"{file.name} describes {there.name} and cannot describe {path.name} too: choose another stem for "
            f"{path.name}, or remove {there.name} with {file.name}"
        )
    if not _is_record(document) and not path.exists():
        raise InputError(
            f"{file} is there and no record of a map: choose another stem for {path.name}, or move it away"
        )


def _owner(document: Mapping[str, Any]) -> str | None:
    """Read the name of the output that a document was written for, None where it says none."""
    summary = document.get("summary")
    output = summary.get("output") if isinstance(summary, Mapping) else None
    return Path(output).name if isinstance(output, str) and output else None


def _is_record(document: Mapping[str, Any]) -> bool:
    """Tell whether a document was written beside a map."""
    return any(isinstance(document.get(key), Mapping) for key in ("summary", "plan", "acquisition", "tiling"))


def partial_paths(path: Path | str, quantities: Iterable[str] | None = None) -> list[Path]:
    """List the names that the files of an output have until it is finished."""
    return [partial_of(final) for final in output_paths(path, quantities)]


def required_bytes(path: Path | str, shape: tuple[int, int], quantities: Iterable[str]) -> int:
    """Estimate from above the disk space an output takes in bytes, pyramids included."""
    size = output_format(path).bytes_for
    assert size is not None, "every format that is written says its size"
    return sum(size(shape, QUANTITIES[name].dtype.itemsize) for name in quantities)
