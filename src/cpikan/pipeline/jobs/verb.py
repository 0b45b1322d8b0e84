"""What a verb of a job is, and where the verbs are."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from cpikan.streaming.events import Events

if TYPE_CHECKING:
    from cpikan.pipeline.jobs.job import Job

VERBS = ("reconstruct", "simulate", "train", "finetune", "evaluate", "solve", "ablate")  # files in verbs/


@dataclass(frozen=True)
class Verb:
    """``settings``: dataclasses whose fields a job of this verb may set; ``needs``: fields of the job that must be given;
    ``run(job, events, seconds_before)`` does the work and returns its figures; ``check`` refuses settings by an InputError,
    by default those that their own dataclass refuses."""

    settings: tuple[type[Any], ...]
    needs: tuple[str, ...]
    run: Callable[[Job, Events, float], dict[str, Any]]
    check: Callable[[Job], object] = lambda job: [job.part(kind) for kind in verb_named(job.verb).settings]

    @property
    def names(self) -> tuple[str, ...]:
        """List the settings by name."""
        return tuple(dict.fromkeys(entry.name for kind in self.settings for entry in fields(kind)))


def verb_named(name: str) -> Verb:
    """Load the verb ``name``, one of `VERBS`."""
    verb: Verb = importlib.import_module(f"cpikan.pipeline.jobs.verbs.{name}").VERB
    return verb
