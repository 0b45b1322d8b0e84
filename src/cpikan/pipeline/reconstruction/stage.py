"""What a stage of a reconstruction is, what all stages are given, and the scratch arrays between them."""

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
from cpikan.psi.kernels.model import PixelModel
from cpikan.psi.kernels.select import PixelKernels
from cpikan.storage.checks import Check
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.layout import QUANTITIES
from cpikan.streaming.engine import StreamTimings
from cpikan.streaming.events import Events, Progress
from cpikan.streaming.journal import Journal
from cpikan.streaming.threads import RowPool
from cpikan.surface.grouped_form import GroupedForm

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
    """What a run has made before its first stage; ``facts`` is the summary so far, of the stages that are done."""

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
