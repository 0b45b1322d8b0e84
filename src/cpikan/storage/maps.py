"""Reading outputs back: every map lazily, every header checked against the size of its file first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.lazy import LazyMap, TiffMap, ZarrMap
from cpikan.storage.writers.layout import QUANTITIES, document_path, npy_path, partial_of

MapArray = np.ndarray | LazyMap


@dataclass(frozen=True)
class StoredMap:
    """A finished output: lazy ``arrays`` of shape (H, W) by quantity, ``document`` from STEM.json ({} when absent)."""

    path: Path
    arrays: dict[str, MapArray]
    document: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        height, width = next(iter(self.arrays.values())).shape
        return height, width


def open_map(path: Path | str) -> StoredMap:
    """Open an output (.npy, .tif or .zarr) without reading its pixels.

    Raises InputError for a file that is missing, unfinished, truncated or of another layout, and for maps of different
    shapes.
    """
    path = Path(path)
    openers = {".npy": _open_npy, ".tif": _open_tiff, ".tiff": _open_tiff, ".zarr": _open_zarr}
    if path.suffix.lower() not in openers:
        raise InputError(f"{path} is not a map: allowed are {', '.join(openers)}")
    if not path.exists():
        unfinished = partial_of(path).exists()
        hint = "it is unfinished: run again with --resume" if unfinished else "check the name"
        raise InputError(f"{path} does not exist: {hint}")
    arrays = openers[path.suffix.lower()](path)
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) != 1:
        raise InputError(f"the maps of {path} differ in shape ({shapes}): they do not belong together")
    return StoredMap(path, arrays, read_document(path))


def read_document(path: Path | str) -> dict[str, Any]:
    """STEM.json beside an output, {} when there is none; InputError when it is not a JSON object."""
    file = document_path(path)
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as failure:
        raise InputError(f"{file} is not readable JSON ({failure}): remove it or write the map again") from failure
    if not isinstance(document, dict):
        raise InputError(f"{file} holds a JSON {type(document).__name__}: an object is expected")
    return document


def open_npy(path: Path) -> np.ndarray:
    """Map a two-dimensional .npy file into memory, read-only, after its header has been checked against its size."""
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = _npy_header(file)
            start, size = file.tell(), file.seek(0, 2)
    except (ValueError, OSError, EOFError) as failure:
        raise InputError(f"{path} is not a readable .npy file ({failure}): write it again") from failure
    if len(shape) != 2 or min(shape) < 1 or dtype.kind not in "fiu":
        raise InputError(f"{path} holds {dtype} of shape {shape}: a map is two-dimensional and holds numbers")
    needed = start + shape[0] * shape[1] * dtype.itemsize  # Python integers: a hostile header cannot overflow
    if size < needed:
        raise InputError(f"{path} is truncated: {size} of {needed} bytes are there; write it again")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the format")


def _open_npy(path: Path) -> dict[str, MapArray]:
    files = {name: npy_path(path, name) for name in QUANTITIES}
    return {name: open_npy(file) for name, file in files.items() if file.exists()}


def _open_tiff(path: Path) -> dict[str, MapArray]:
    from cpikan.storage.writers.tiff import BAD_TIFF, read_pages

    try:
        pages = read_pages(path)
    except BAD_TIFF as failure:
        raise InputError(
            f"{path} is not a map this program wrote ({failure}): give its .tif, .zarr or .npy"
        ) from failure
    size = path.stat().st_size
    needed = max(page.end for page in pages)
    if size < needed:
        raise InputError(f"{path} is truncated: {size} of {needed} bytes are there; write it again")
    return {page.quantity: TiffMap(path, page) for page in pages}


def _open_zarr(path: Path) -> dict[str, MapArray]:
    from cpikan.storage.writers.zarr import BAD_ZARR, open_level

    arrays: dict[str, MapArray] = {}
    for name in QUANTITIES:
        if not (path / name).exists():
            continue
        try:
            arrays[name] = ZarrMap(path / name / "0", open_level(path, name, 0))
        except InputError:
            raise
        except BAD_ZARR as failure:
            raise InputError(f"{path / name} is not a readable Zarr map ({failure}): write it again") from failure
    if "height_nm" not in arrays:
        raise InputError(f"{path} has no group height_nm: it is not an output of this program")
    return arrays
