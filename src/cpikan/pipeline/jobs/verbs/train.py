"""The verb ``train``: an image model from the config file ``source``."""

from __future__ import annotations

from typing import Any

from cpikan.pipeline.jobs.job import Job, RunOptions, Verb
from cpikan.streaming.events import Events


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Train and return the summary."""
    from cpikan.pipeline.training.train import train

    how = job.part(RunOptions)
    return train(job.source, job.output, resume=how.resume, overwrite=how.overwrite, progress=events)


VERB = Verb((RunOptions,), ("source", "output"), run)
