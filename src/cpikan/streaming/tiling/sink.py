"""Where finished rows go: an array in memory, or a file that remembers how far it came."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cpikan.errors import InputError, ResumeError
from cpikan.storage.atomic import checks_of, read_json, write_json
from cpikan.storage.writers.arrays import check_replaceable, open_array_writer, remove_finished
from cpikan.storage.writers.layout import RowAssembler, check_document, document_path, output_paths, partial_of
from cpikan.streaming.journal import Journal, check_same_plan
from cpikan.streaming.tiling.plan import TilingSettings

_SYNC_S = 5.0  # at most this much work is lost in a power cut


class RowsOut(Protocol):
    """Takes consecutive rows (C, n, W) float32 from ``first_row`` on."""

    @property
    def first_row(self) -> int: ...

    def write(self, start: int, rows: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def commit(self, report: dict[str, Any]) -> None: ...


class ArrayOut:
    """Rows of an array (C, H, W) in memory; bands are blended in it directly, so ``write`` has nothing left to do."""

    first_row = 0

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def write(self, start: int, rows: np.ndarray) -> None:
        if not np.may_share_memory(rows, self.array):
            self.array[:, start : start + rows.shape[1]] = rows

    def finish(self) -> None:
        """Leave the array as it is: nothing is to be made durable."""

    def commit(self, report: dict[str, Any]) -> None:
        """Leave the report to the caller."""


class FileOut:
    """Rows of a file of ``shape`` (H, W) or (C, H, W), with a journal beside it until it is finished.

    Raises InputError when the output exists and nothing was said of it, ResumeError when what is there belongs to
    another ``plan``. ``finished`` is the document of an earlier run that left nothing to do.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], plan: dict[str, Any], settings: TilingSettings) -> None:
        self._path, self._shape, self._plan = path, shape, json.loads(json.dumps(plan))
        self._overwrite = settings.overwrite
        self.first_row, self.finished = 0, None
        log = path.with_name(path.name + ".journal")
        self._finals = output_paths(path, settings.quantities) if settings.quantities else [path]
        there = [final for final in self._finals if final.exists()]
        if there and settings.resume and not log.exists():
            self.finished = self._document()
            return
        if there and not (settings.resume or settings.overwrite):
            raise InputError(f"output {there[0]} exists: set overwrite to replace it, or choose another name")
        check_document(path)
        for final in there:
            check_replaceable(final)
        if not path.parent.is_dir():
            raise InputError(f"folder {path.parent} of the output {path.name} does not exist: create it first")
        self._journal = Journal.resume(log, plan) if settings.resume and log.exists() else Journal.start(log, plan)
        try:
            self._open(path, settings, bool(there))
        except BaseException:
            self._journal.release()
            raise
        self._synced_at = time.perf_counter()

    def _open(self, path: Path, settings: TilingSettings, there: bool) -> None:
        self._journal.drop_damaged()
        last = self._journal.last("tiles")
        if last is not None:
            self.first_row = int(last["rows"])
        if self.first_row == self._shape[-2] and there and not partial_of(path).exists():
            self._writer = None  # killed after the output got its name: only the document is missing
            return
        self._writer = open_array_writer(path, self._shape, settings.quantities, resume=last is not None)
        self._assembler = RowAssembler(self._writer, (self._shape[-2], self._shape[-1]))

    def write(self, start: int, rows: np.ndarray) -> None:
        skip = max(self.first_row - start, 0)  # rows done before, which came again on the way to the next ones
        if skip >= rows.shape[1] or self._writer is None:
            return
        named = {name: rows[c, skip:] for c, name in enumerate(self._writer.quantities)}
        handed = self._assembler.write(start + skip, named)
        if handed > self.first_row:
            synced = time.perf_counter() - self._synced_at > _SYNC_S
            self._mark(handed, synced)

    def finish(self) -> None:
        """Make all rows durable and give the output its name."""
        if self._writer is not None:
            self._mark(self._shape[-2], True)
            if self._overwrite:
                remove_finished(self._path)
            self._writer.finish()

    def commit(self, report: dict[str, Any]) -> None:
        """Keep plan and report beside the finished output and forget the journal."""
        write_json(document_path(self._path), {"plan": self._plan, "tiling": report})
        self._journal.remove()

    def release(self) -> None:
        """Let go of the files; what is done stays for a resume, and where nothing is, nothing is left."""
        if self.finished is not None or self._journal.closed:
            return
        if self._writer is not None:
            self._writer.close()
        if self._journal.steps:
            self._journal.close()
            return
        for partial in map(partial_of, self._finals):
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink(missing_ok=True)
        self._journal.remove()

    def _mark(self, rows: int, synced: bool) -> None:
        if synced and self._writer is not None:
            self._writer.sync()
            self._synced_at = time.perf_counter()
        checks = checks_of(self._writer, self._journal.path.parent)
        self._journal.add({"stage": "tiles", "rows": rows, "checks": checks}, synced=synced)
        self.first_row = rows

    def _document(self) -> dict[str, Any]:
        document = read_json(document_path(self._path))
        if isinstance(document.get("plan"), dict):
            check_same_plan(document["plan"], self._plan)
            if isinstance(document.get("tiling"), dict):
                return dict(document["tiling"])
        raise ResumeError(f"output {self._path} exists but says not how it was made: set overwrite to replace it")
