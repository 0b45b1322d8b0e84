"""What all readers of frames share: their description, bounds, the ``out`` array, and the identity of files."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError


@dataclass(frozen=True)
class FrameLayout:
    """The frames a header describes: (frames, H, W), the type pixels are read as, a label per frame, wavelengths if 4-D.

    ``stored`` is the type in the file where pixels are read as another.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    labels: tuple[str, ...]
    groups: int | None = None
    stored: np.dtype | None = None


class BaseReader(ABC):
    """The part of a FrameReader that does not depend on the file; a reader supplies ``_rows`` and ``fingerprint``."""

    def __init__(self, layout: FrameLayout) -> None:
        self.shape, self.dtype, self.labels, self.groups = layout.shape, layout.dtype, layout.labels, layout.groups
        self.stored_dtype = (layout.stored or layout.dtype).newbyteorder("=")  # of the pixels in the file
        self.bits: int | None = None  # that count of a pixel, where the file says so
        self.told: dict[str, Any] = {}  # keys of acquisition.toml that the file itself says
        self.orientation = ""  # what was done to the rows or columns as the file has them, and why
        self.remarks: tuple[tuple[str, str], ...] = ()  # short names and sentences of what is to be doubted

    def take_over(self, other: BaseReader) -> None:
        """Say of these frames what ``other`` says of its own, which they are made of."""
        self.bits, self.told, self.orientation, self.remarks = other.bits, other.told, other.orientation, other.remarks

    def files(self) -> list[Path]:
        """List the files that hold the frames; none where they are in memory."""
        return []

    def origin(self) -> tuple[Any, ...] | None:
        """Return the arguments that open the same frames again; None for frames that are in memory."""
        return None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle frames of files by where they are: a copy opens them again, with descriptors of its own."""
        origin = self.origin()
        if origin is None:
            return super().__reduce_ex__(protocol)
        return _opened_again, (type(self), origin, self.fingerprint())

    def read_rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read rows [start, stop) of every frame, (frames, stop - start, W), in native byte order; see FrameReader."""
        if not 0 <= start <= stop <= self.shape[1]:
            raise IndexError(f"rows {start} to {stop} of frames with {self.shape[1]} rows")
        band = self._rows(start, stop)
        if out is None:
            return band
        np.copyto(out, band)
        return out

    @abstractmethod
    def _rows(self, start: int, stop: int) -> np.ndarray:
        """Read rows [start, stop), which are within the frames."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Identify the input cheaply."""

    @abstractmethod
    def close(self) -> None:
        """Release the files; views that were handed out stay valid."""


def _opened_again(kind: type[BaseReader], origin: tuple[Any, ...], fingerprint: str) -> BaseReader:
    """Open pickled frames; InputError when the files are not those that were pickled."""
    reader = kind(*origin)
    if reader.fingerprint() != fingerprint:
        reader.close()
        raise InputError(f"{reader.labels[0]} has changed since its stack was pickled: open the stack again")
    return reader


def frame_labels(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Label each frame of an array of frames: ``name[3]``, or ``name[1,3]`` when there are two leading axes."""
    return tuple(f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(*shape[:-2]))


def fingerprint_files(paths: Iterable[Path], *extra: object) -> str:
    """Hash names, sizes and modification times by SHA-256, without reading any content."""
    facts: list[object] = [str(item) for item in extra]
    for path in paths:
        stat = path.stat()
        facts.append([path.name, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
