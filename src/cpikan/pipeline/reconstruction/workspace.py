"""Where a run writes: the output, its partial files, the journal beside it, and what may be resumed or replaced."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpikan.errors import InputError, ResumeError
from cpikan.storage.atomic import read_json, refuse_link, write_json
from cpikan.storage.writers.layout import (
    check_document,
    document_path,
    output_format,
    output_paths,
    partial_of,
    partial_paths,
)
from cpikan.streaming.journal import Journal, check_same_plan

State = Literal["new", "unfinished", "finished"]
OUTPUT_ROWS = "output"  # in the journal: rows of the output


@dataclass
class Workspace:
    """The files of one run; ``state`` says how far an earlier run of the same plan came."""

    output: Path
    quantities: tuple[str, ...]
    journal: Journal | None
    state: State

    @property
    def scratch(self) -> Path:
        return self.output.with_name(self.output.name + ".scratch")

    @classmethod
    def open(
        cls, output: Path, quantities: tuple[str, ...], plan: dict[str, Any], *, resume: bool, overwrite: bool
    ) -> Workspace:
        """Claim the output for a run of ``plan``.

        Raises InputError when it exists and nothing was said of it, or while another process writes there; ResumeError
        when what is there belongs to other settings.
        """
        if resume and overwrite:
            raise InputError("--resume and --overwrite exclude each other: continue the old run, or begin anew")
        if not output.parent.is_dir():
            raise InputError(f"folder {output.parent} of the output {output.name} does not exist: create it first")
        check_document(output)
        log = output.with_name(output.name + ".journal")
        for path in (*partial_paths(output), output.with_name(output.name + ".scratch")):
            refuse_link(path)
        # of any quantity: a sigma of an older run beside a new height would pass for its own
        there = [path for path in output_paths(output) if path.exists()]
        if resume or overwrite:
            _check_replaceable(there)
        if resume and there and not log.exists():
            return cls._finished(output, quantities, plan)
        refuse_existing(output, resume=resume, overwrite=overwrite)
        if resume and log.exists():
            space = cls(output, quantities, Journal.resume(log, plan), "unfinished")
        else:
            space = cls(output, quantities, Journal.start(log, plan), "new")
        assert space.journal is not None
        if not there and not space.journal.steps and any(path.exists() for path in output_paths(output)):
            space.journal.remove()  # another run finished between the look and the lock: look again
            return cls.open(output, quantities, plan, resume=resume, overwrite=overwrite)
        return space._taken_up(plan)._verified()

    @classmethod
    def _finished(cls, output: Path, quantities: tuple[str, ...], plan: dict[str, Any]) -> Workspace:
        try:
            check_same_plan(_document(output)["plan"], plan)
        except KeyError as failure:
            raise ResumeError(
                f"output {output} exists but says not how it was made: add --overwrite to replace it"
            ) from failure
        lost = [path for path in output_paths(output, quantities) if not path.exists()]
        if lost:
            raise ResumeError(f"{lost[0]} of the finished output is missing: add --overwrite to make it anew")
        return cls(output, quantities, None, "finished")

    def _taken_up(self, plan: dict[str, Any]) -> Workspace:
        """Bring this workspace to one of three states: nothing there, a part there, or all there but the tidying."""
        assert self.journal is not None
        if not self.journal.steps:
            self._clear()
            self.state = "new"
            return self
        last, partial = self.journal.last(OUTPUT_ROWS), partial_of(self.output)
        whole = last is not None and last["rows"] == plan["shape"][2]
        if whole and self.output.exists() and not partial.exists():  # killed after the output got its name
            if _document(self.output).get("plan") == json.loads(json.dumps(plan)):
                self._forget()
                self.state, self.journal = "finished", None
            else:
                self.output.rename(partial)
        return self

    def _verified(self) -> Workspace:
        """Forget the steps from the first on whose bytes on disk have changed: they are done again."""
        if self.journal is not None and self.journal.drop_damaged() and not self.journal.steps:
            self._clear()
            self.state = "new"
        return self

    def replace_old(self) -> None:
        """Remove what an older run left under the final names, just before the new files take them."""
        kept = set(output_paths(self.output, self.quantities))
        for path in output_paths(self.output):
            if path not in kept:
                path.unlink(missing_ok=True)
            elif path.is_dir() and partial_of(path).exists():
                shutil.rmtree(path)

    def commit(self, document: dict[str, Any]) -> None:
        """Write the document beside the finished output and forget the journal and the scratch files."""
        write_json(document_path(self.output), document)
        self._forget()

    def discard(self) -> None:
        """Leave nothing of this run: its output would hold no measurement."""
        if self.journal is not None and not self.journal.closed:
            self._clear()
            self.journal.remove()

    def release(self) -> None:
        """Leave what is done for a resume; where nothing is, leave nothing."""
        if self.journal is None or self.journal.closed:
            return
        if self.journal.steps:
            self.journal.close()
        else:
            self._clear()
            self.journal.remove()

    def held_bytes(self) -> int:
        """Count the bytes on disk that the unfinished files of this run take already."""
        places = [*partial_paths(self.output, self.quantities), self.scratch]
        files = [file for place in places for file in (place, *place.rglob("*")) if file.is_file()]
        return sum(512 * file.stat().st_blocks for file in files)

    def _forget(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.journal is not None:
            self.journal.remove()

    def _clear(self) -> None:
        """Remove unfinished files, of any quantity."""
        for path in (*partial_paths(self.output), self.scratch):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def refuse_existing(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise InputError for an output that exists, of any quantity, where nothing was said of it."""
    there = next((path for path in output_paths(output) if path.exists()), None)
    if there is not None and not (resume or overwrite):
        raise InputError(f"output {there} exists: add --overwrite to replace it, or choose another name")


def _check_replaceable(there: list[Path]) -> None:
    """Refuse now what could not be replaced at the end, and folders that hold something else than an output."""
    for path in there:
        folder = output_format(path).folder
        ours = path.is_dir() and not path.is_symlink() and ((path / "height_nm").is_dir() or not any(path.iterdir()))
        if (folder and not ours) or (not folder and not path.is_file()):
            raise InputError(f"{path} exists and is not an output of this program: choose another name, or remove it")


def _document(output: Path) -> dict[str, Any]:
    """Read the document beside an output, empty where there is none to read."""
    document = read_json(document_path(output))
    return document if isinstance(document.get("plan"), dict) else {}
