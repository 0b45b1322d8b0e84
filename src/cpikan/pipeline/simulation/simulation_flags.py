"""What a user writes about a simulation, turned into settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cpikan.errors import InputError
from cpikan.option import option
from cpikan.pipeline.stacks.acquisition_file import build_acquisition
from cpikan.psi.simulate import Instrument, SimulationSettings
from cpikan.units import parse_length_nm


@dataclass(frozen=True)
class SimulationFlags:
    """What is simulated, as text with units; the light, the detector and its faults are fields of `Instrument`."""

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

    def settings(self, instrument: Instrument) -> SimulationSettings:
        """Make the settings of the simulation; raises InputError for text that is not what it should be."""
        values: dict[str, Any] = {"wavelengths": list(self.wavelengths)}
        if self.phase_steps is not None:
            values["phase_steps"] = self.phase_steps
        acquisition = build_acquisition(values)
        return SimulationSettings(
            shape=parse_shape(self.shape),
            wavelengths_nm=acquisition.wavelengths_nm,
            frames=self.frames,
            phase_steps_deg=acquisition.phase_steps_deg,
            seed=self.seed,
            bit_depth=self.bit_depth,
            surface=self.surface,
            instrument=instrument,
            pixel_um=None if self.pixel_size is None else parse_length_nm(self.pixel_size, "pixel size") / 1e3,
        )


def parse_shape(text: str) -> tuple[int, int]:
    """Read ``HxW``; raises InputError for anything else."""
    match = re.fullmatch(r"\s*(\d+)\s*[xX\u00d7]\s*(\d+)\s*", text)
    if match is None:
        raise InputError(f"shape {text!r} is not HxW: give rows x columns, such as 7000x9344")
    return int(match[1]), int(match[2])
