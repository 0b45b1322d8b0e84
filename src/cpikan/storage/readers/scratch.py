"""Frames of files that cannot be read by rows, decoded once into a temporary file."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cpikan.errors import InputError

_MAX_WORKERS = 4
_WORKING_BYTES = 2**29  # anonymous memory of all frames being decoded at a time


class ScratchFrames:
    """Decode frames on first use, in order, to a raw temporary file that is memory-mapped and removed on ``close``.

    ``decode[k]()`` returns frame k as (H, W) of ``dtype``. The file is written, not mapped, while it grows: a full disk
    is then an error with a name instead of a bus error. ``working_bytes`` is what decoding one frame takes: as many
    frames are decoded at a time as fit into 512 MiB, one at least and four at most; afterwards no memory is held.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        decode: Sequence[Callable[[], np.ndarray]],
        working_bytes: int,
    ) -> None:
        self._shape, self._dtype, self._decode = shape, dtype, decode
        self._workers = max(1, min(_MAX_WORKERS, os.cpu_count() or 1, _WORKING_BYTES // max(1, working_bytes)))
        self._finalizer: weakref.finalize | None = None
        self._folder: Path | None = None
        self._done = 0
        self._frames: np.ndarray | None = None

    def rows(self, start: int, stop: int) -> np.ndarray:
        """View rows [start, stop) of every frame, read-only, in the scratch file."""
        if self._frames is None:
            self.fill(self._shape[0])
            self._frames = np.memmap(self._file(), dtype=self._dtype, mode="r", shape=self._shape).view(np.ndarray)
        return self._frames[:, start:stop, :]

    def fill(self, frames: int) -> None:
        """Decode up to the given number of frames, those that are not there yet."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="cpikan-decode") as pool:
            while self._done < frames:
                batch = self._decode[self._done : min(self._done + self._workers, frames)]
                for frame in pool.map(lambda decode: decode(), batch):
                    self._append(frame)

    def close(self) -> None:
        """Forget the frames and remove the temporary file."""
        self._frames = None
        self._done = 0
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = self._folder = None

    def _file(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="cpikan-frames-"))
            self._finalizer = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / "frames.raw"

    def _append(self, frame: np.ndarray) -> None:
        if frame.shape != self._shape[1:] or frame.dtype != self._dtype:
            raise InputError(
                f"a frame decoded to {frame.shape} {frame.dtype} but its header said {self._shape[1:]} {self._dtype}: "
                "the file is damaged"
            )
        path = self._file()
        try:
            with open(path, "r+b" if path.exists() else "w+b") as file:
                file.seek(self._done * frame.nbytes)
                file.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            need = self._shape[0] * frame.nbytes / 2**20
            raise InputError(
                f"{path.parent} cannot take the decoded frames ({error.strerror}): {need:.0f} MiB are needed; make "
                "room, or name another folder in the environment variable TMPDIR"
            ) from error
        self._done += 1
