"""Large arrays of one run in nameless files: their pages can leave memory, and nothing is left when they are dropped."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.storage.atomic import full_disk_named

_LEAST_BYTES = 2**18  # smaller arrays stay in memory


class Spill:
    """Makes arrays whose memory is a file without a name in ``folder``; where it cannot hold one, StorageFull is raised."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Make an array of any content, as `numpy.empty` does."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if size < _LEAST_BYTES:
            return np.empty(shape, kind)
        with full_disk_named(self._folder, size), tempfile.TemporaryFile(dir=self._folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk shows now, and not as a signal when a page is written
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, kind, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
