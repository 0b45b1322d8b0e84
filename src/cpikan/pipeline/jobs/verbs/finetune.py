"""The verb ``finetune``: an image model fitted to the stack or the folder of stacks ``source``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.pipeline.jobs.job import Job, RunOptions, Verb
from cpikan.pipeline.training.finetune_settings import FinetuneSettings
from cpikan.streaming.events import Events


@dataclass(frozen=True)
class FinetuneOptions:
    """``model`` is the model to begin with: a file, or the name of a shipped one."""

    model: str = "wafer"


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Fit the model and return the summary."""
    from cpikan.pipeline.training.train import finetune

    how, model, settings = job.part(RunOptions), job.part(FinetuneOptions).model, job.part(FinetuneSettings)
    return finetune(
        model, job.source, job.output, settings, resume=how.resume, overwrite=how.overwrite, progress=events
    )


VERB = Verb((FinetuneOptions, FinetuneSettings, RunOptions), ("source", "output"), run)
