"""The door to the writers: chosen by suffix, with the names and the sizes of what they will make."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.protocols import MapWriter
from cpikan.storage.writers.layout import QUANTITIES, MapLayout, npy_path, partial_of

_ALLOWED = ".npy, .tif, .tiff, .zarr"


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
    kind = _kind(path)
    if not path.parent.is_dir():
        raise InputError(f"folder {path.parent} of the output {path.name} does not exist: create it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"folder {path.parent} is not writable: choose another place for {path.name}")
    layout = MapLayout.checked(path, shape, quantities, attributes)
    if kind == "npy":
        from cpikan.storage.writers.npy import NpyWriter

        return NpyWriter(layout, resume=resume)
    if kind == "tiff":
        from cpikan.storage.writers.tiff import TiffWriter

        return TiffWriter(layout, resume=resume)
    from cpikan.storage.writers.zarr import ZarrWriter

    return ZarrWriter(layout, resume=resume)


def output_paths(path: Path | str, quantities: Iterable[str] | None = None) -> list[Path]:
    """The files (the folder, for .zarr) a finished output consists of; by default with every quantity there may be.

    The JSON document beside them is not among them: see ``document_path``.
    """
    path = Path(path)
    names = QUANTITIES if quantities is None else quantities
    return [npy_path(path, name) for name in names] if _kind(path) == "npy" else [path]


def partial_paths(path: Path | str, quantities: Iterable[str] | None = None) -> list[Path]:
    """The names the same files have until the output is finished."""
    return [partial_of(final) for final in output_paths(path, quantities)]


def required_bytes(path: Path | str, shape: tuple[int, int], quantities: Iterable[str]) -> int:
    """An upper estimate of the disk space an output takes, pyramids included."""
    kind = _kind(Path(path))
    return sum(_quantity_bytes(kind, shape, QUANTITIES[name].dtype.itemsize) for name in quantities)


def _quantity_bytes(kind: str, shape: tuple[int, int], itemsize: int) -> int:
    height, width = shape
    if kind == "npy":
        return 128 + height * width * itemsize
    tiles = -(-height // 512) * -(-width // 512)
    if kind == "tiff":
        return tiles * (512 * 512 * itemsize + 16) + 2**16
    # levels of a quarter each; padded chunks compress away; 64 KiB a level for metadata and what does not compress
    size = 0
    while True:
        size += int(1.01 * height * width * itemsize) + 2**16
        if max(height, width) <= 512:
            return size
        height, width = -(-height // 2), -(-width // 2)


def _kind(path: Path) -> str:
    kinds = {".npy": "npy", ".tif": "tiff", ".tiff": "tiff", ".zarr": "zarr"}
    if path.suffix.lower() not in kinds:
        raise InputError(f"output {path.name!r} has no known suffix: allowed are {_ALLOWED}, such as {path.stem}.zarr")
    return kinds[path.suffix.lower()]
