"""What a stage of a reconstruction is, what all stages are given, the scratch arrays between them, and the map they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cpikan.pipeline.reconstruction.calibrate import StackCalibration
from cpikan.pipeline.reconstruction.output import Output
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.kernels import form
from cpikan.psi.kernels.model import PixelModel
from cpikan.psi.kernels.select import PixelKernels
from cpikan.psi.model.flags import Flag
from cpikan.storage.atomic import Check
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.layout import QUANTITIES, SLOPES
from cpikan.streaming.engine import Band, StreamTimings, split_bands
from cpikan.streaming.events import Events, Progress
from cpikan.streaming.journal import Journal
from cpikan.streaming.ranks import ALONE, Ranks
from cpikan.streaming.threads import RowPool
from cpikan.surface.forms.grouped_form import GroupedForm, no_form

if TYPE_CHECKING:
    from cpikan.pipeline.reconstruction.network import LearnedModel
    from cpikan.pipeline.reconstruction.plan import Plan


_OWN: Mapping[str, np.dtype] = {  # beside the quantities of the output
    "phase_rad": np.dtype(np.float32),
    "sigma_rad": np.dtype(np.float32),
    "order": np.dtype(np.int32),
    "ambiguous": np.dtype(np.bool_),
    "correction_nm": np.dtype(np.float32),
    "flags_learned": np.dtype(np.uint8),
    "guess_nm": np.dtype(np.float32),
    "guess_sigma_nm": np.dtype(np.float32),
}
DerivedRows = Callable[[int, int], dict[str, np.ndarray]]  # rows [start, stop) by quantity


def scratch_files(stages: Sequence[Stage]) -> dict[str, np.dtype]:
    """List the scratch arrays of a run by file name; what a later stage writes anew has the stage's name in its own."""
    return {file: array_type(name) for (_, name), file in _files(stages).items()}


def array_type(name: str) -> np.dtype:
    """Look up the type of an array: that of the quantity, or of one that only stages know."""
    return _OWN[name] if name in _OWN else QUANTITIES[name].dtype


def _files(stages: Sequence[Stage]) -> dict[tuple[str, str], str]:
    """Name the file of every stage and array."""
    files: dict[tuple[str, str], str] = {}
    for stage in stages:
        taken = {name for _, name in files}
        files |= {(stage.name, name): f"{name}.{stage.name}" if name in taken else name for name in stage.writes}
    return files


class Arrays:
    """The arrays of one run; a stage reads the `current` version of each and writes versions `of` its own.

    ``datum`` is the form to take off the heights, None until a stage has fitted one; ``derived`` are rows that are
    computed when the output is written.
    """

    def __init__(self, folder: Path, shape: tuple[int, int], stages: Sequence[Stage], *, resume: bool) -> None:
        self.shape = shape
        self.datum: GroupedForm | None = None
        self.derived: dict[tuple[str, ...], DerivedRows] = {}
        self._files = _files(stages)
        self._current: dict[str, str] = {}
        kinds = scratch_files(stages)
        self._scratch = ScratchArrays(folder, shape, kinds, resume=resume) if kinds else None

    @property
    def scratch(self) -> ScratchArrays:
        """Return the scratch files; a run that turns frames into the output in one pass has none."""
        assert self._scratch is not None, "no stage of this run has arrays"
        return self._scratch

    def __iter__(self) -> Iterator[str]:
        return iter(self._current)

    def __contains__(self, name: str) -> bool:
        return name in self._current

    def current(self, name: str) -> np.ndarray:
        """Open the newest version of an array, (H, W), as a memory map for reading."""
        return self.scratch.array(self._current[name])

    def oldest(self, name: str) -> np.ndarray:
        """Open the first version of an array, (H, W), as a memory map for reading."""
        return self.scratch.array(name)

    def of(self, stage: Stage, name: str) -> np.ndarray:
        """Open the version of an array that ``stage`` writes, as a memory map for writing."""
        return self.scratch.array(self.file(stage, name), writable=True)

    def rows(self, names: Iterable[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Copy rows [start, stop) of those of ``names`` that there are."""
        return {name: np.array(self.current(name)[start:stop]) for name in names if name in self}

    def file(self, stage: Stage, name: str) -> str:
        """Name the file of the version that ``stage`` writes."""
        return self._files[stage.name, name]

    def checks(self, stage: Stage, folder: Path) -> list[Check]:
        """Check the versions that ``stage`` wrote, by names relative to ``folder``."""
        return [self.scratch.check(self.file(stage, name)).within(folder) for name in stage.writes]

    def finish(self, stage: Stage) -> None:
        """Make the versions that ``stage`` wrote the current ones."""
        self._current |= {name: self._files[stage.name, name] for name in stage.writes}

    def derive(self, names: tuple[str, ...], rows: DerivedRows) -> None:
        """Have ``rows`` compute ``names`` when the output is written, in place of what did so before."""
        self.derived[names] = rows

    def close(self) -> None:
        """Close the files; they stay."""
        if self._scratch is not None:
            self._scratch.close()


@dataclass(frozen=True)
class Context:
    """What a run has made before its first stage; ``facts`` is the summary so far, of the stages that are done.

    ``ranks`` are the processes that share the passes over the frames.
    """

    stack: FrameStack
    settings: ReconstructSettings
    plan: Plan
    calibrated: StackCalibration
    kernels: PixelKernels
    journal: Journal
    output: Output
    pool: RowPool
    events: Events
    facts: Mapping[str, Any]
    network: LearnedModel | None = None
    ranks: Ranks = ALONE

    @property
    def shape(self) -> tuple[int, int]:
        """Count the rows and columns of the map."""
        return self.stack.shape[2], self.stack.shape[3]

    @property
    def model(self) -> PixelModel:
        """Return the model of the pixels."""
        return self.calibrated.calibration.model

    @property
    def nm_per_rad(self) -> float:
        """Give the height of one radian of the first wavelength in nm."""
        return self.stack.acquisition.wavelengths_nm[0] / (4 * np.pi)

    def progress(self, stage: str, rows: int | None = None) -> Progress:
        """Start a count of the rows of the map that a stage has done, of ``rows`` in all (None: the whole map)."""
        return Progress(stage, self.shape[0] if rows is None else rows, self.shape[1], self.events)


@dataclass(frozen=True)
class Stage(ABC):
    """One step from frames to the output.

    ``reads`` and ``writes`` are scratch arrays by name; ``derives`` names rows that are computed when the
    output is written. A stage that works ``once`` keeps its part of the summary in the journal: a resumed run takes it from
    there and calls `resume` in place of `run`. Other stages go on by themselves. Seconds that a stage does not report itself
    count as ``seconds_`` + ``clock``.
    """

    name: ClassVar[str]
    clock: ClassVar[str] = "write"
    once: ClassVar[bool] = False
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    derives: tuple[str, ...] = ()

    @abstractmethod
    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Do the work and return its part of the summary: lists are appended to, seconds added to those of other stages."""

    def resume(self, arrays: Arrays, context: Context) -> None:
        """Make what a finished stage keeps in memory; by default nothing."""
        return


def busy_seconds(timings: StreamTimings) -> dict[str, float]:
    """Return the part of the summary that says how many seconds a pass over the frames was busy."""
    return {
        "seconds_read": timings.read,
        "seconds_demodulate": timings.compute,
        "seconds_write": timings.write,
    }


_INVALID = int(Flag.INVALID)
SlopeSource = Callable[[int, int], dict[str, np.ndarray]]


def put_slopes(found: Mapping[str, np.ndarray], flags: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
    """Copy rows by quantity into the buffers ``out``, NaN where the flags say that nothing was measured."""
    invalid = (flags & _INVALID) > 0
    for name, rows in out.items():
        rows[...] = found[name]
        rows[invalid] = np.nan


def levelled_slopes(source: SlopeSource, datum: GroupedForm, shape: tuple[int, int]) -> SlopeSource:
    """Take the derivatives of the form off the slopes of ``source``, exactly; the sigmas stay."""
    if not datum.basis.modes:
        return source
    from cpikan.surface.forms.form_slopes import FormSlopes

    form = FormSlopes(datum, shape)

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        found = source(start, stop)
        for name, part in zip(SLOPES[:3], form.rows(start, stop), strict=True):
            found[name] = found[name] - part
        return found

    return rows


_SWEEP_PIXELS, _PIECE_PIXELS = 1 << 18, 1 << 17  # a band, or what a thread takes of one, and its form stay in the cache
# what the height of an unwrapped phase is formed from
_PHASES = ("phase_rad", "order", "component", "ambiguous", "flags")


@dataclass(frozen=True)
class FormedMap:
    """Rows of the map that ``arrays`` hold, without the form ``datum``; ``nm_per_rad`` turns unwrapped phases into heights."""

    arrays: Arrays
    datum: GroupedForm
    nm_per_rad: float
    pool: RowPool

    @classmethod
    def of(cls, arrays: Arrays, context: Context) -> FormedMap:
        """Make the map of a run as it stands."""
        datum = arrays.datum or no_form(context.facts["components"])
        return cls(arrays, datum, context.nm_per_rad, context.pool)

    @property
    def unwrapped(self) -> bool:
        """Tell whether heights are formed from unwrapped phases; else they are stored."""
        return "order" in self.arrays

    def sweep(self) -> tuple[Band, ...]:
        """Split the map into bands of sums: not the user's, so that sums of floats come out the same."""
        height, width = self.arrays.shape
        return split_bands(height, max(1, _SWEEP_PIXELS // width))

    def heights(self, band: Band) -> dict[str, np.ndarray]:
        """Form rows of ``height_nm``, with what they came from: ``flags`` and ``component`` of unwrapped phases."""
        rows = self.arrays.rows(
            (*(_PHASES if self.unwrapped else ("height_nm",)), "correction_nm"), band.start, band.stop
        )
        rows["height_nm"] = self._levelled(band, rows)
        return rows

    def rows(self, band: Band) -> dict[str, np.ndarray]:
        """Form the rows of all quantities that are stored or formed, the flags complete."""
        return self.complete(band, self.read(band))

    def read(self, band: Band) -> dict[str, np.ndarray]:
        """Copy the rows of all arrays."""
        return self.arrays.rows(self.arrays, band.start, band.stop)

    def complete(self, band: Band, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Complete rows that were read with their heights formed, in place."""
        rows["height_nm"] = self._levelled(band, rows)
        if "sigma_nm" not in rows:
            rows["sigma_nm"] = rows["sigma_rad"] * np.float32(self.nm_per_rad)
        if "flags_learned" in rows:
            rows["flags"] |= rows["flags_learned"]
            rows["sigma_nm"][~np.isfinite(rows["height_nm"])] = np.nan  # a network says 0 there
        return rows

    def with_datum(self, band: Band) -> tuple[np.ndarray, np.ndarray | None]:
        """Form heights in nm of a band with the form in them, NaN where there is none, and read their components."""
        rows = self.arrays.rows(
            ("height_nm", "phase_rad", "order", "component", "correction_nm"), band.start, band.stop
        )
        more = rows.get("correction_nm", np.float32(0))
        if not self.unwrapped:
            return rows["height_nm"] + more, None
        phase = rows["phase_rad"] + 2 * np.pi * rows["order"]
        return np.where(rows["component"] > 0, phase * self.nm_per_rad + more, np.nan), rows["component"]

    def _levelled(self, band: Band, rows: dict[str, np.ndarray]) -> np.ndarray:
        """Form heights of a band without the form, float32, on all threads; flags of phases are completed in place."""
        datum, width = self.datum, self.arrays.shape[1]
        height, correction = np.empty((band.rows, width), np.float32), rows.get("correction_nm")
        form_rows: Any = form.form_rows

        def piece(start: int, stop: int) -> None:
            part = slice(start, stop)
            if self.unwrapped:
                shared = np.empty((0, 0))
                if datum.basis.modes:
                    shared = datum.rows(band.start + start, rows["component"][part] > 0)
                parts = (rows[name][part] for name in _PHASES)
                form_rows(*parts, self.nm_per_rad, datum.constants_nm, shared, height[part])
            else:
                height[part] = datum.remove(band.start + start, rows["height_nm"][part])
            if correction is not None:
                height[part] += correction[part]

        self.pool.map(piece, band.rows, min(-(-band.rows // self.pool.threads), max(1, _PIECE_PIXELS // width)))
        return height
