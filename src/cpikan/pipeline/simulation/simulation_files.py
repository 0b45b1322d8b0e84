"""The files of a simulation: written by image rows under partial names, put in place together, with a journal."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError, ResumeError
from cpikan.psi.simulate import SimulationSettings, Simulator
from cpikan.psi.simulate.surface import NO_STATISTICS, count_heights
from cpikan.storage.atomic import check_disk_space, full_disk_named, plain, sync_path, write_json, write_text
from cpikan.storage.writers.layout import partial_of
from cpikan.storage.writers.npy import NpyArrayFile, array_bytes
from cpikan.streaming.engine import Band
from cpikan.streaming.journal import Journal

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
