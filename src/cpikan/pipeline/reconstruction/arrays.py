"""Scratch arrays between the stages of a run, by name, each in its newest version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cpikan.storage.checks import Check
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.layout import QUANTITIES
from cpikan.surface.grouped_form import GroupedForm

if TYPE_CHECKING:
    from cpikan.pipeline.reconstruction.stage import Stage

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
