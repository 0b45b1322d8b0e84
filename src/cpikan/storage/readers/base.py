"""What all readers of frames share: their description, bounds, the ``out`` array, and the identity of files."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class FrameLayout:
    """The frames a header describes: (frames, H, W), the native pixel type, a label per frame, wavelengths if 4-D."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    labels: tuple[str, ...]
    groups: int | None = None


class BaseReader(ABC):
    """The part of a FrameReader that does not depend on the file; a reader supplies ``_rows`` and ``fingerprint``."""

    def __init__(self, layout: FrameLayout) -> None:
        self._layout = layout

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._layout.shape

    @property
    def groups(self) -> int | None:
        return self._layout.groups

    @property
    def dtype(self) -> np.dtype:
        return self._layout.dtype

    @property
    def labels(self) -> tuple[str, ...]:
        return self._layout.labels

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
