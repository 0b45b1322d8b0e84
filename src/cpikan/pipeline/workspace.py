"""Where a run writes: the output, its partial files, the journal beside it, and what may be resumed or replaced."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpikan.errors import InputError, ResumeError
from cpikan.storage.atomic import write_json
from cpikan.storage.writers.layout import document_path
from cpikan.storage.writers.open import output_paths, partial_paths
from cpikan.streaming.journal import Journal, check_same_plan

State = Literal["new", "unfinished", "finished"]


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
        finals = output_paths(output, quantities)  # also refuses an unknown suffix
        log = output.with_name(output.name + ".journal")
        there = [path for path in finals if path.exists()]
        if resume and there and not log.exists():
            return cls._finished(output, quantities, plan)
        if there and not (resume or overwrite):
            raise InputError(f"output {there[0]} exists: add --overwrite to replace it, or choose another name")
        if resume and log.exists():
            journal = Journal.resume(log, plan)
            begun = bool(journal.steps)
            return cls(output, quantities, journal, "unfinished" if begun else "new")
        return cls(output, quantities, Journal.start(log, plan), "new")

    @classmethod
    def _finished(cls, output: Path, quantities: tuple[str, ...], plan: dict[str, Any]) -> Workspace:
        try:
            document = json.loads(document_path(output).read_text(encoding="utf-8"))
            check_same_plan(document["plan"], plan)
        except (OSError, ValueError, KeyError) as failure:
            if isinstance(failure, ResumeError):
                raise
            raise ResumeError(
                f"output {output} exists but says not how it was made: add --overwrite to replace it"
            ) from failure
        return cls(output, quantities, None, "finished")

    def replace_old(self) -> None:
        """Remove what an older run left under the final names, just before the new files take them."""
        for path in output_paths(self.output, self.quantities):
            partial = path.with_name(path.name + ".partial")
            if path.is_dir() and partial.exists():
                shutil.rmtree(path)

    def missing_partials(self) -> bool:
        """Whether a journal stands without its data, so that there is nothing to go on from."""
        finals, partials = output_paths(self.output, self.quantities), partial_paths(self.output, self.quantities)
        return any(not partial.exists() and not final.exists() for final, partial in zip(finals, partials, strict=True))

    def commit(self, document: dict[str, Any]) -> None:
        """Write the document beside the finished output and forget the journal and the scratch files."""
        write_json(document_path(self.output), document)
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.journal is not None:
            self.journal.remove()

    def release(self) -> None:
        """Leave everything as it is for a resume."""
        if self.journal is not None:
            self.journal.close()
