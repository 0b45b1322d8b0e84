"""What a stage of a reconstruction is, and what all stages are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cpikan.pipeline.reconstruction.calibrate import StackCalibration
from cpikan.pipeline.reconstruction.output import Output
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.kernels.model import PixelModel
from cpikan.psi.kernels.select import PixelKernels
from cpikan.streaming.engine import StreamTimings
from cpikan.streaming.events import Events, Progress
from cpikan.streaming.journal import Journal
from cpikan.streaming.threads import RowPool

if TYPE_CHECKING:
    from cpikan.pipeline.reconstruction.arrays import Arrays
    from cpikan.pipeline.reconstruction.network import LearnedModel
    from cpikan.pipeline.reconstruction.plan import Plan


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
