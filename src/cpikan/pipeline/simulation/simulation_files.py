"""The files of a simulation: written by image rows under partial names, put in place together, with a journal."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError, ResumeError
from cpikan.psi.simulate import SimulationSettings, Simulator
from cpikan.psi.simulate.surface import NO_STATISTICS, count_heights
from cpikan.storage.atomic import check_disk_space, full_disk_named, plain, sync_folder, write_json, write_text
from cpikan.storage.writers.preallocated import PreallocatedFile
from cpikan.streaming.bands import Band

FRAMES, TRUTH, ACQUISITION, RECORD = "frames.npy", "truth.npy", "acquisition.toml", "simulation.json"
_DURABLE_BYTES = 512 * 2**20  # at most so much is written again after a power cut


def acquisition_toml(settings: SimulationSettings) -> str:
    """The acquisition of ``settings`` as TOML with units: nominal steps and what they are worth."""
    acquisition = settings.acquisition
    waves = ", ".join(f'"{value!r} nm"' for value in acquisition.wavelengths_nm)
    steps = [list(row) for row in settings.steps_deg]
    same = all(row == steps[0] for row in steps)
    return (
        f"wavelengths = [{waves}]\n"
        f"phase_steps = {steps[0] if same else steps}\n"
        f'steps       = "{acquisition.steps}"\n'
        f'pixel_size  = "{acquisition.pixel_um!r} um"\n'
        f"bit_depth   = {settings.bit_depth}\n"
    )


def describe(settings: SimulationSettings) -> dict[str, Any]:
    """The settings as JSON holds them: presets and steps resolved, lists for tuples."""
    resolved = dataclasses.replace(
        settings, surface=settings.resolved_surface, phase_steps_deg=settings.steps_deg, frames=None
    )
    return dict(plain(dataclasses.asdict(resolved)))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one when the file is missing or broken."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def partial_of(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


class SimulationFiles:
    """The partial files of a run, filled band by band, and a journal of the rows that are safe on disk."""

    def __init__(self, place: Path, settings: SimulationSettings, resume: bool) -> None:
        self._place, self._settings = place, settings
        self._described = describe(settings)
        self._journal = partial_of(place / RECORD)
        self.rows_done, self._statistics = 0, NO_STATISTICS.copy()
        self._frames = _ArrayFile(place / FRAMES, settings.stack_shape, settings.dtype)
        self._truth = _ArrayFile(place / TRUTH, settings.shape, np.dtype(np.float32))
        self._unsafe_bytes = 0
        kept = read_json(self._journal) if resume else {}
        if not (kept and self._frames.reopen() and self._truth.reopen()):
            self._start()
            return
        self.rows_done, self._statistics = int(kept["rows_done"]), np.array(kept["statistics"], np.float64)

    def _start(self) -> None:
        files = (self._frames, self._truth)
        for file in files:
            file.remove()
        check_disk_space(self._place, sum(file.bytes for file in files))
        self._place.mkdir(parents=True, exist_ok=True)
        with full_disk_named(self._place, sum(file.bytes for file in files)):
            for file in files:
                file.create()
        self._sync()

    def write(self, band: Band, height_nm: np.ndarray, frames: np.ndarray) -> None:
        """Store one band: heights (n, W), frames (L * K, n, W)."""
        with full_disk_named(self._place, height_nm.nbytes + frames.nbytes):
            self._frames.write_rows(band.start, frames)
            self._truth.write_rows(band.start, height_nm[None])
        count_heights(height_nm, self._statistics)
        self.rows_done = band.stop
        self._unsafe_bytes += frames.nbytes + height_nm.nbytes
        if self._unsafe_bytes > _DURABLE_BYTES:
            self._sync()

    def _sync(self) -> None:
        with full_disk_named(self._place, self._unsafe_bytes):
            self._frames.sync()
            self._truth.sync()
        state = {"rows_done": self.rows_done, "statistics": self._statistics, "settings": self._described}
        write_json(self._journal, state)
        self._unsafe_bytes = 0

    def finish(self) -> dict[str, Any]:
        """Make everything durable and put it in place; frames.npy comes last, so a folder that has it is complete."""
        self._sync()
        record = self._record()
        self._frames.final.unlink(missing_ok=True)  # an earlier output: never its frames beside the new truth
        self._truth.put_in_place()
        write_text(self._place / ACQUISITION, acquisition_toml(self._settings))
        write_json(self._place / RECORD, record)
        self._frames.put_in_place()
        self._journal.unlink(missing_ok=True)
        sync_folder(self._place)
        return record

    def _record(self) -> dict[str, Any]:
        """What was made; no times, so equal settings give equal files."""
        valid, total, squares, low, high = (float(value) for value in self._statistics)
        mean = total / max(valid, 1.0)
        faults = Simulator(self._settings).faults
        return {
            "shape": list(self._settings.stack_shape),
            "true_steps_deg": plain(faults.steps_deg),
            "true_tilt_rad": plain(faults.tilt_rad),
            "true_gain": plain(faults.gain),
            "valid_fraction": valid / math.prod(self._settings.shape),
            "pv_nm": high - low if valid else None,
            "rms_nm": math.sqrt(max(squares / max(valid, 1.0) - mean * mean, 0.0)),
            "largest_nm": max(abs(high), abs(low)) if valid else None,
            "settings": self._described,
        }

    def close(self) -> None:
        """Release the files; an unfinished run keeps its partial ones and says in the journal how far it came."""
        if self._unsafe_bytes:
            with contextlib.suppress(OSError, InputError):  # the failure that brought us here is the one to tell
                self._sync()
        self._frames.close()
        self._truth.close()


class _ArrayFile:
    """A .npy file (..., H, W) written by image rows under a partial name."""

    def __init__(self, final: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.final, self._partial = final, partial_of(final)
        self._shape, self._dtype = shape, dtype
        head = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(head, described)
        self._head = head.getvalue()
        self.bytes = len(self._head) + math.prod(shape) * dtype.itemsize
        self._file: PreallocatedFile | None = None

    def create(self) -> None:
        self._file = PreallocatedFile.create(self._partial, self.bytes, self._head)

    def reopen(self) -> bool:
        """Open what an earlier run left, even one stopped while putting its files in place; False if it is gone."""
        if not self._partial.exists() and self.final.exists():
            self.final.replace(self._partial)
        try:
            self._file = PreallocatedFile.reopen(self._partial, self.bytes)
        except ResumeError:
            return False
        return True

    def remove(self) -> None:
        self.close()
        self._partial.unlink(missing_ok=True)

    def write_rows(self, start: int, planes: Iterable[np.ndarray]) -> None:
        """Store image rows [start, start + n) of every plane (n, W), in order."""
        assert self._file is not None
        height, width = self._shape[-2:]
        for number, plane in enumerate(planes):
            offset = (number * height + start) * width * self._dtype.itemsize
            self._file.write(len(self._head) + offset, plane)

    def sync(self) -> None:
        assert self._file is not None
        self._file.sync()

    def put_in_place(self) -> None:
        self.close()
        self._partial.replace(self.final)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
