"""A file of known size, filled by positioned writes: no mapped or anonymous memory grows with the image."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cpikan.errors import ResumeError
from cpikan.storage.atomic import Check, sync_path

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class PreallocatedFile:
    """An open file whose size is final from the start; use ``create`` or ``reopen``."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._named = False
        self._checks: list[Check] = []

    @classmethod
    def create(cls, path: Path, size: int, head: bytes) -> PreallocatedFile:
        """Make anew a file of ``size`` bytes that starts with ``head``.

        Its space is reserved on the disk where the file system can, so that a full disk shows now; then nothing is left.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        file = cls(path, descriptor)
        try:
            _reserve(descriptor, size)
            file.write(0, np.frombuffer(head, np.uint8))
        except BaseException:
            file.close()
            path.unlink()
            raise
        return file

    @classmethod
    def reopen(cls, path: Path, size: int) -> PreallocatedFile:
        """Open a partial file for more writes; ResumeError when it is missing or of another size."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError as failure:
            raise ResumeError(f"{path} is missing: nothing to resume; run again without --resume") from failure
        found = os.fstat(descriptor).st_size
        if found != size:
            os.close(descriptor)
            raise ResumeError(f"{path} has {found} bytes where {size} are expected: run again without --resume")
        return cls(path, descriptor)

    def write(self, offset: int, array: np.ndarray) -> None:
        """Write a C-contiguous array at a byte offset."""
        self._checks.append(Check.of_array(self.path, offset, array))
        view = memoryview(array.data).cast("B")
        while view:
            written = os.pwrite(self._descriptor, view, offset)  # may be short: 2 GiB at most, or the disk fills up
            view, offset = view[written:], offset + written

    def take_checks(self) -> list[Check]:
        """Return the checks of everything written since this was called last."""
        taken, self._checks = self._checks, []
        return taken

    def sync(self) -> None:
        """Make everything written survive a power cut."""
        _sync_data(self._descriptor)
        if not self._named:  # the size and the name are settled once
            os.fsync(self._descriptor)
            sync_path(self.path.parent)
            self._named = True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as failure:
            if failure.errno not in _UNSUPPORTED:
                raise
    os.ftruncate(descriptor, size)
