"""Simulated frames on disk, streamed: frames.npy, truth.npy, acquisition.toml, simulation.json."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError, ResumeError
from cpikan.psi.simulate import SimulationSettings, Simulator
from cpikan.psi.simulate.surface import NO_STATISTICS, count_heights
from cpikan.storage.atomic import check_disk_space, full_disk_named, plain, read_json, sync_path, write_json, write_text
from cpikan.storage.writers.layout import partial_of
from cpikan.storage.writers.npy import NpyArrayFile, array_bytes
from cpikan.streaming.engine import Band, BufferPool, StreamTimings, split_bands, stream
from cpikan.streaming.events import Events, Progress
from cpikan.streaming.journal import Journal
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.threads import RowPool

FRAMES, TRUTH, ACQUISITION, RECORD = "frames.npy", "truth.npy", "acquisition.toml", "simulation.json"
_DURABLE_BYTES = 512 * 2**20  # at most so much is written again after a power cut


def acquisition_toml(settings: SimulationSettings) -> str:
    """Write the acquisition of ``settings`` as TOML with units: nominal steps and what they are worth."""
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
    """Describe the settings as JSON holds them: presets and steps resolved, lists for tuples."""
    resolved = dataclasses.replace(
        settings, surface=settings.resolved_surface, phase_steps_deg=settings.steps_deg, frames=None
    )
    return dict(plain(dataclasses.asdict(resolved)))


def journal_of(place: Path) -> Path:
    """Name the journal file of an unfinished simulation."""
    return place / "simulation.journal"


class SimulationFiles:
    """The partial files of a run, filled band by band, and a journal of the rows that are safe on disk.

    Raises InputError while another process simulates there, ResumeError where what is to be resumed has other settings.
    """

    def __init__(self, place: Path, settings: SimulationSettings, resume: bool) -> None:
        self._place, self._settings = place, settings
        self._described = describe(settings)
        self._arrays = {  # in the order in which they get their names
            place / TRUTH: (settings.shape, np.dtype(np.float32)),
            place / FRAMES: (settings.stack_shape, settings.dtype),
        }
        self.rows_done, self._statistics = 0, NO_STATISTICS.copy()
        self._unsafe_bytes = 0
        self._begin(resume)

    def _begin(self, resume: bool) -> None:
        needed = sum(array_bytes(*array) for array in self._arrays.values())
        log = journal_of(self._place)
        if not (resume and log.exists()):
            check_disk_space(self._place, needed)
        self._place.mkdir(parents=True, exist_ok=True)
        self._journal = Journal.resume(log, self._described) if resume else Journal.start(log, self._described)
        try:
            kept = self._journal.last("rows")
            if kept is None or not self._reopened():
                with full_disk_named(self._place, needed):
                    self._truth, self._frames = self._files(resume=False)
                self._sync()
            else:
                self.rows_done, self._statistics = int(kept["rows"]), np.array(kept["statistics"], np.float64)
        except BaseException:
            self._journal.release()
            raise

    def _files(self, resume: bool) -> list[NpyArrayFile]:
        return [NpyArrayFile(path, *array, resume=resume) for path, array in self._arrays.items()]

    def _reopened(self) -> bool:
        """Open what an earlier run left, even one stopped while putting its files in place; False if it is gone."""
        for path in self._arrays:
            if not partial_of(path).exists() and path.exists():
                path.replace(partial_of(path))
        try:
            self._truth, self._frames = self._files(resume=True)
        except ResumeError:
            return False
        return True

    def write(self, band: Band, height_nm: np.ndarray, frames: np.ndarray) -> None:
        """Store one band: heights (n, W), frames (L * K, n, W)."""
        with full_disk_named(self._place, height_nm.nbytes + frames.nbytes):
            for number, frame in enumerate(frames):
                self._frames.write(band.start, frame, number)
            self._truth.write(band.start, height_nm)
        count_heights(height_nm, self._statistics)
        self.rows_done = band.stop
        self._unsafe_bytes += frames.nbytes + height_nm.nbytes
        if self._unsafe_bytes > _DURABLE_BYTES:
            self._sync()

    def _sync(self) -> None:
        with full_disk_named(self._place, self._unsafe_bytes):
            self._frames.sync()
            self._truth.sync()
        rows = {"stage": "rows", "rows": self.rows_done, "statistics": self._statistics.tolist()}
        self._journal.add(rows, synced=True)
        self._unsafe_bytes = 0

    def finish(self) -> dict[str, Any]:
        """Make everything durable and put it in place; frames.npy comes last, so a folder that has it is complete."""
        self._sync()
        record = self._record()
        self._frames.path.unlink(missing_ok=True)  # an earlier output: never its frames beside the new truth
        self._truth.put_in_place()
        write_text(self._place / ACQUISITION, acquisition_toml(self._settings))
        write_json(self._place / RECORD, record)
        self._frames.put_in_place()
        self._journal.remove()
        sync_path(self._place)
        return record

    def _record(self) -> dict[str, Any]:
        """Record what was made, without times, so that equal settings give equal files."""
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
        self._journal.close()


_BAND_BYTES = 12 * 2**20  # of frames, height and kind together
_MAX_BAND_ROWS = 256
_THREADS = max(2, min(8, os.cpu_count() or 2))
_DEPTH = 1

_Buffers = tuple[np.ndarray, np.ndarray, np.ndarray]  # height, kind, frames of one band


def simulate(
    folder: str | os.PathLike[str],
    settings: SimulationSettings,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool | Events = True,
) -> dict[str, Any]:
    """Write frames.npy (L, K, H, W), acquisition.toml and truth.npy (H, W), float32 nm with NaN off the wafer.

    Memory is O(band); the bytes depend on the settings alone. simulation.json keeps the settings and the faults that
    were drawn. A run that was stopped leaves ``*.partial`` files which ``resume`` continues. Returns what was made, the
    seconds it took and the largest anonymous memory. Raises InputError when an output exists and ``overwrite`` is off,
    when the disk is too small, or (ResumeError) when a resumed run has other settings.

    >>> simulate("wafer", SimulationSettings(shape=(7000, 9344), wavelengths_nm=(5000.0, 5500.0, 6050.0, 6655.0)))
    """
    started = time.perf_counter()
    place = Path(folder)
    finished = _check_existing(place, settings, overwrite, resume)
    timings, memory = StreamTimings(), PeakMemory()
    record = finished
    if record is None:
        with memory, contextlib.closing(SimulationFiles(place, settings, resume)) as output:
            timings = _run(output, settings, progress)
            record = output.finish()
    seconds = time.perf_counter() - started
    return record | {
        "seconds": seconds,
        "seconds_surface": timings.read,
        "seconds_frames": timings.compute,
        "seconds_write": timings.write,
        "megapixels_per_second": 0.0 if finished else math.prod(settings.shape) / 1e6 / seconds,
        "peak_anonymous_mib": memory.mib,
        "already_finished": finished is not None,
        "output": str(place),
    }


def _run(output: SimulationFiles, settings: SimulationSettings, progress: bool | Events) -> StreamTimings:
    """Stream the bands that are missing: surface ahead, frames here on all threads, files behind."""
    simulator = Simulator(settings)
    wavelengths, count, height, width = settings.stack_shape
    rows = band_rows(settings)
    bands = split_bands(height, rows, output.rows_done)

    def buffers_of_a_band() -> _Buffers:
        height_nm, kind = np.empty((rows, width), np.float32), np.empty((rows, width), np.uint8)
        return height_nm, kind, np.empty((wavelengths * count, rows, width), settings.dtype)

    free = BufferPool(buffers_of_a_band)

    def surface(band: Band) -> _Buffers:
        buffers = free.take()
        simulator.fill_surface(band.start, buffers[0][: band.rows], buffers[1][: band.rows])
        return buffers

    def write(band: Band, buffers: _Buffers) -> None:
        output.write(band, buffers[0][: band.rows], buffers[2][:, : band.rows])
        free.give(buffers)

    with (
        RowPool(_THREADS, "cpikan-frames") as pool,
        Progress("simulate", sum(band.rows for band in bands), width, progress) as shown,
    ):

        def expose(band: Band, buffers: _Buffers) -> _Buffers:
            pool.map(lambda start, stop: simulator.fill_frames(band.start, *buffers, (start, stop)), band.rows)
            return buffers

        return stream(bands, surface, expose, write, depth=_DEPTH, progress=shown)


def band_rows(settings: SimulationSettings) -> int:
    """Choose the rows per band: about 12 MiB of frames and heights, at most 256 rows."""
    wavelengths, count, height, width = settings.stack_shape
    rows = _BAND_BYTES // (width * (wavelengths * count * settings.dtype.itemsize + 5))
    return int(min(max(rows, 1), _MAX_BAND_ROWS, height))


def _check_existing(place: Path, settings: SimulationSettings, overwrite: bool, resume: bool) -> dict[str, Any] | None:
    """Refuse to touch an earlier output; return its record when a resumed run finds it finished."""
    if resume and overwrite:
        raise InputError("resume and overwrite contradict each other: choose one")
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file: give a folder for the frames")
    found = [name for name in (FRAMES, TRUTH, ACQUISITION) if (place / name).exists()]
    if overwrite:
        return None
    if not resume:
        if found:
            raise InputError(f"{place} already holds {', '.join(found)}: give another folder, or --overwrite")
        return None
    if journal_of(place).exists():
        return None  # which knows the settings
    finished = read_json(place / RECORD)
    if FRAMES in found and finished.get("settings") == describe(settings):
        return finished
    if found:
        raise ResumeError(
            f"{place} holds a simulation with other settings: repeat those, give another folder, or --overwrite"
        )
    return None
