"""The verb ``simulate``: frames of an interferometer that was never there."""

from __future__ import annotations

from typing import Any

from cpikan.pipeline.jobs.job import Job, RunOptions, Verb
from cpikan.pipeline.simulation.simulation_flags import SimulationFlags
from cpikan.psi.simulate import Instrument, SimulationSettings
from cpikan.streaming.events import Events


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Simulate into the folder ``output`` and return what was made."""
    from cpikan.pipeline.simulation.simulate import simulate

    how = job.part(RunOptions)
    return simulate(job.output, settings_of(job), overwrite=how.overwrite, resume=how.resume, progress=events)


def settings_of(job: Job) -> SimulationSettings:
    """Read the settings of the simulation from a job."""
    flags: SimulationFlags = job.part(SimulationFlags)
    return flags.settings(Instrument(**job.given(Instrument)))


VERB = Verb(
    (SimulationFlags, Instrument, RunOptions), ("output",), run, lambda job: (settings_of(job), job.part(RunOptions))
)
