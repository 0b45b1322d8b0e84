"""The verb ``simulate``: frames of an interferometer that was never there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.option import option
from cpikan.pipeline.jobs.job import Job
from cpikan.pipeline.jobs.options import RunOptions
from cpikan.pipeline.jobs.verb import Verb
from cpikan.pipeline.simulation.simulation_flags import simulation_settings
from cpikan.psi.simulate import Instrument, SimulationSettings
from cpikan.streaming.events import Events


@dataclass(frozen=True)
class SimulateOptions:
    """What is simulated, lengths with units; the light, the detector and its faults are fields of `Instrument`."""

    shape: str = option("1024x1024", "rows x columns", metavar="HxW")
    wavelengths: tuple[str, ...] = option(
        ("632.8 nm",), "with unit (default: 632.8 nm)", flag="--wavelength", metavar="LENGTH", many=True
    )
    frames: int | None = option(None, "frames per wavelength (default: 4)", metavar="N")
    phase_steps: str | None = option(
        None, "cumulative steps instead of N equal ones; ; between wavelengths", metavar="DEG,..."
    )
    pixel_size: str | None = option(None, "with unit; default: the whole wafer in the frame", metavar="LENGTH")
    seed: int = option(0, "another seed, another wafer")
    bit_depth: int = option(8, "8 to 16")
    surface: str = option("wafer", "wafer, smooth, etched or bumps")


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
