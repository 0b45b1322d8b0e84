"""Reading outputs back: every map lazily, every header checked against the size of its file first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.atomic import refuse_special
from cpikan.storage.documents import parse_json
from cpikan.storage.formats import door_of
from cpikan.storage.headers import decoding, read_npy_header
from cpikan.storage.lazy import LazyMap, TiffMap, ZarrMap
from cpikan.storage.writers.layout import QUANTITIES, document_path, npy_path, partial_of

MapArray = np.ndarray | LazyMap


@dataclass(frozen=True)
class StoredMap:
    """A stored map: lazy ``arrays`` of shape (H, W) by quantity, ``document`` from STEM.json ({} when absent).

    The document of an instrument's file is made of its header; beside the acquisition it may have ``notes`` and
    ``fringes_nm``, the height of one fringe of each wavelength.
    """

    path: Path
    arrays: Mapping[str, MapArray]
    document: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        height, width = next(iter(self.arrays.values())).shape
        return height, width


def open_map(path: Path | str) -> StoredMap:
    """Open a map of any format that holds heights, without reading its pixels.

    Raises InputError for a file that is missing, unfinished, truncated or of another layout, and for maps of different
    shapes.
    """
    path = _whole(Path(path))
    opener = door_of(path, "heights", str(path))
    if not path.exists():
        unfinished = partial_of(path).exists()
        hint = "it is unfinished: run again with --resume" if unfinished else "check the name"
        raise InputError(f"{path} does not exist: {hint}")
    refuse_special(path)
    with decoding(str(path)):
        stored: StoredMap = opener(path)
    shapes = {name: array.shape for name, array in stored.arrays.items()}
    if len(set(shapes.values())) != 1:
        raise InputError(f"the maps of {path} differ in shape ({shapes}): they do not belong together")
    return stored


def _whole(path: Path) -> Path:
    """Find the output that the heights ``OUT.zarr/height_nm``, as other programs open them, are a part of."""
    inner = path.parent if path.name == "0" else path
    whole = inner.parent
    return whole if inner.name == "height_nm" and inner.is_dir() and whole.suffix == ".zarr" else path


def read_document(path: Path | str) -> dict[str, Any]:
    """Read STEM.json beside an output, {} when there is none; raises InputError when it is not a JSON object."""
    file = document_path(path)
    if not file.exists():
        return {}
    refuse_special(file)
    try:
        document = parse_json(file.read_bytes())
    except (ValueError, OSError) as failure:
        raise InputError(f"{file} is not readable JSON ({failure}): remove it or write the map again") from failure
    if not isinstance(document, dict):
        raise InputError(f"{file} holds a JSON {type(document).__name__}: an object is expected")
    return document


def open_npy(path: Path, kinds: str = "fiu") -> np.ndarray:
    """Map a two-dimensional .npy file into memory, read-only, after its header has been checked against its size."""
    refuse_special(path)
    try:
        with decoding(str(path)), open(path, "rb") as file:
            shape, fortran, dtype = read_npy_header(file)
            start, size = file.tell(), file.seek(0, 2)
    except InputError as failure:
        cause = failure.__cause__ or failure
        raise InputError(f"{path} is not a readable .npy file ({cause}): write it again") from failure
    if len(shape) != 2 or min(shape) < 1 or dtype.kind not in kinds:
        raise InputError(f"{path} holds {dtype} of shape {shape}: a map is two-dimensional and holds numbers")
    needed = start + shape[0] * shape[1] * dtype.itemsize  # Python integers: a hostile header cannot overflow
    if size < needed:
        raise InputError(f"{path} is truncated: {size} of {needed} bytes are there; write it again")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


def open_npy_image(path: Path) -> np.ndarray:
    """Map a .npy of two dimensions into memory as `open_npy` does, truth values too."""
    return open_npy(path, "bfiu")


def open_npy_map(path: Path) -> StoredMap:
    """Open a .npy of heights in nm and the quantities in files beside it."""
    files = {name: npy_path(path, name) for name in QUANTITIES}
    return _stored(path, {name: open_npy(file) for name, file in files.items() if file.exists()})


def open_tiff_map(path: Path) -> StoredMap:
    """Open a .tif that `TiffWriter` wrote; InputError for any other."""
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
    return _stored(path, {page.quantity: TiffMap(path, page) for page in pages})


def open_zarr_map(path: Path) -> StoredMap:
    """Open a .zarr that `ZarrWriter` wrote; InputError for any other."""
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
    return _stored(path, arrays)


def _stored(path: Path, arrays: Mapping[str, MapArray]) -> StoredMap:
    return StoredMap(path, arrays, read_document(path))
