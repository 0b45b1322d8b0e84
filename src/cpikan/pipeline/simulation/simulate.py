"""Simulated frames on disk, streamed: frames.npy, truth.npy, acquisition.toml, simulation.json."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError, ResumeError
from cpikan.pipeline.simulation.simulation_files import (
    ACQUISITION,
    FRAMES,
    RECORD,
    TRUTH,
    SimulationFiles,
    describe,
    journal_of,
)
from cpikan.psi.simulate import SimulationSettings, Simulator
from cpikan.storage.atomic import read_json
from cpikan.streaming.engine import Band, BufferPool, StreamTimings, split_bands, stream
from cpikan.streaming.events import Events, Progress
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.threads import RowPool

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
