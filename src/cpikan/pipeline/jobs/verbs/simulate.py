"""The verb ``simulate``: frames of an interferometer that was never there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.pipeline.jobs.job import Job
from cpikan.pipeline.jobs.options import RunOptions
from cpikan.pipeline.jobs.verb import Verb
from cpikan.pipeline.simulation.simulation_flags import simulation_settings
from cpikan.psi.simulate import Instrument, SimulationSettings
from cpikan.streaming.events import Events


@dataclass(frozen=True)
class SimulateOptions:
    """What is simulated, lengths with units; the light, the detector and its faults are fields of `Instrument`."""

    shape: str = "1024x1024"
    wavelengths: tuple[str, ...] = ("632.8 nm",)
    frames: int | None = None
    phase_steps: str | None = None
    pixel_size: str | None = None
    seed: int = 0
    bit_depth: int = 8
    surface: str = "wafer"


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Simulate into the folder ``output`` and return what was made."""
    from cpikan.pipeline.simulation.simulate import simulate

    how = job.part(RunOptions)
    return simulate(job.output, settings_of(job), overwrite=how.overwrite, resume=how.resume, progress=events)


def settings_of(job: Job) -> SimulationSettings:
    """The settings of the simulation."""
    options = job.part(SimulateOptions)
    return simulation_settings(
        shape=options.shape,
        wavelengths=options.wavelengths,
        frames=options.frames,
        phase_steps=options.phase_steps,
        pixel_size=options.pixel_size,
        plain={"seed": options.seed, "bit_depth": options.bit_depth, "surface": options.surface},
        instrument=job.given(Instrument),
    )


VERB = Verb(
    (SimulateOptions, Instrument, RunOptions), ("output",), lambda job: (settings_of(job), job.part(RunOptions)), run
)
