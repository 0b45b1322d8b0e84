"""What every reader of frames and every writer of maps promises; all else knows files only through these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class FrameReader(Protocol):
    """Frames of one acquisition, opened from headers only, read as windows of image rows.

    ``shape`` is (frames, H, W); ``groups`` is the number of wavelengths when the file itself says so (a 4-D array),
    else None; ``dtype`` is uint8, uint16, float32 or float64 in native byte order. ``read_rows`` is called by one
    thread at a time.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def groups(self) -> int | None: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Name each frame for messages: a file name, or ``frames.npy[3]``."""
        ...

    def read_rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read rows [start, stop) of every frame, shape (frames, stop - start, W).

        ``out`` is filled and returned when given; otherwise the result may be a read-only view of the file. Bands are
        cheapest in order. Raises InputError, naming the file, when stored pixels are damaged or absent.
        """
        ...

    def fingerprint(self) -> str:
        """Identify the input cheaply (names, sizes, modification times): a resumed run refuses other frames."""
        ...

    def close(self) -> None:
        """Release the files; once more does nothing."""
        ...


@runtime_checkable
class MapWriter(Protocol):
    """Image rows of several quantities on their way to durable storage.

    Rows go to a partial output beside the final name; ``finish`` makes them durable and puts them in place in one step.
    Every call comes from one thread. ``row_align`` is the multiple at which row ranges must start (chunk rows; 1 =
    any); the last range may be shorter.
    """

    @property
    def quantities(self) -> tuple[str, ...]: ...

    @property
    def row_align(self) -> int: ...

    def write_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        """Store rows [start, start + n); the arrays may be reused by the caller afterwards."""
        ...

    def sync(self) -> None:
        """Return once everything written so far would survive a power cut."""
        ...

    def finish(self) -> None: ...

    def close(self) -> None:
        """Release the files and keep the partial output for a later resume."""
        ...
