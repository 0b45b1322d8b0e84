"""Any image as rows of float32: arrays, memory maps, array-likes, readers of frames, and files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.masked import without_mask
from cpikan.storage.formats import format_of
from cpikan.storage.headers import decoding, read_npy_header
from cpikan.storage.maps import open_map, open_npy
from cpikan.storage.protocols import FrameReader
from cpikan.storage.readers.base import fingerprint_files
from cpikan.storage.readers.open import open_frames

_SAMPLED_ROWS = 64


@dataclass(frozen=True)
class ImageSource:
    """An image of ``shape`` (C, H, W); ``flat`` when it came as (H, W).

    ``fill(start, stop, out)`` puts rows [start, stop) into ``out`` (C, stop - start, W) float32. ``array`` is the image
    itself where it is float32 in memory, so that rows need no copy.
    """

    shape: tuple[int, int, int]
    flat: bool
    fill: Callable[[int, int, np.ndarray], None]
    fingerprint: Callable[[], str]
    close: Callable[[], None]
    array: np.ndarray | None = None


def open_source(given: Any) -> ImageSource:
    """Open an image (H, W) or (C, H, W): an array, a FrameReader, any array-like with slices, or a path.

    What a NumPy masked array masks is NaN. A path is a .npy file, a map this package wrote, or any stack of frames it
    reads. Raises InputError for anything else, complex numbers among it (give cos and sin as two channels), and what the
    file's reader refuses.
    """
    if isinstance(given, str | Path):
        return _open_path(Path(given), str(given))
    if isinstance(given, FrameReader):
        return _from_reader(given, close=lambda: None)
    if not (hasattr(given, "shape") and hasattr(given, "dtype") and hasattr(given, "__getitem__")):
        raise InputError(f"source {type(given).__name__} is no image: give an array, a reader of frames, or a path")
    given = without_mask(given)
    return _from_array(given, lambda: _sampled(given))


def _open_path(path: Path, text: str) -> ImageSource:
    known = format_of(path)
    if known is not None and known.beside and path.is_file() and _axes(path) == 2:
        return _from_array(open_npy(path), lambda: fingerprint_files([path]))
    if (path / "height_nm").is_dir():  # a map of this package
        return _from_array(open_map(path).arrays["height_nm"], lambda: fingerprint_files(_files(path)))
    reader = open_frames(text).reader
    return _from_reader(reader, close=reader.close)


def _from_reader(reader: FrameReader, close: Callable[[], None]) -> ImageSource:
    frames, height, width = reader.shape

    def fill(start: int, stop: int, out: np.ndarray) -> None:
        if reader.dtype == out.dtype and out.flags.c_contiguous:
            reader.read_rows(start, stop, out)
        else:
            np.copyto(out, reader.read_rows(start, stop), casting="same_kind")

    return ImageSource((frames, height, width), False, fill, reader.fingerprint, close)


def _from_array(array: Any, fingerprint: Callable[[], str]) -> ImageSource:
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"an array of shape {shape} is no image: give (H, W) or (C, H, W)")
    if dtype.kind not in "fiub":
        hint = ": give cos and sin (real and imaginary part) as two channels" if dtype.kind == "c" else ""
        raise InputError(f"an image of {dtype} cannot be tiled{hint or ': give real numbers'}")
    flat = len(shape) == 2

    def fill(start: int, stop: int, out: np.ndarray) -> None:
        rows = array[start:stop] if flat else array[:, start:stop]
        np.copyto(out, np.asarray(rows).reshape(out.shape), casting="unsafe")  # float64 narrows, as the docs say

    in_memory = isinstance(array, np.ndarray) and not isinstance(array, np.memmap)  # maps are read ahead by a thread
    plain = array if in_memory and dtype == np.float32 and dtype.isnative else None
    whole = None if plain is None else np.asarray(plain[None] if flat else plain)
    channels = (1, *shape) if flat else shape
    return ImageSource((channels[0], channels[1], channels[2]), flat, fill, fingerprint, lambda: None, whole)


def _sampled(array: Any) -> str:
    """Hash shape, type and the values of 64 rows, evenly spread."""
    height = array.shape[-2]
    digest = hashlib.sha256(f"{tuple(array.shape)} {array.dtype}".encode())
    for row in sorted({i * (height - 1) // max(_SAMPLED_ROWS - 1, 1) for i in range(_SAMPLED_ROWS)}):
        digest.update(np.ascontiguousarray(array[..., row : row + 1, :]).tobytes())
    return digest.hexdigest()


def _axes(path: Path) -> int:
    with decoding(str(path)), open(path, "rb") as file:
        return len(read_npy_header(file)[0])


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
