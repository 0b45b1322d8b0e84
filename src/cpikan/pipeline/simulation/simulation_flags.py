"""What a user writes on the command line about a simulation, turned into settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cpikan.errors import InputError
from cpikan.pipeline.stacks.acquisition_file import build_acquisition
from cpikan.psi.simulate import Instrument, SimulationSettings
from cpikan.units import parse_length_nm


def simulation_settings(
    *,
    shape: str,
    wavelengths: Sequence[str] | None,
    frames: int | None,
    phase_steps: str | None,
    pixel_size: str | None,
    plain: Mapping[str, Any],
    instrument: Mapping[str, Any],
) -> SimulationSettings:
    """Settings of a simulation from text; raises InputError for text that is not what it should be."""
    values: dict[str, Any] = {"wavelengths": list(wavelengths or ["632.8 nm"])}
    if phase_steps is not None:
        values["phase_steps"] = phase_steps
    acquisition = build_acquisition(values)
    return SimulationSettings(
        shape=parse_shape(shape),
        wavelengths_nm=acquisition.wavelengths_nm,
        frames=frames,
        phase_steps_deg=acquisition.phase_steps_deg,
        pixel_um=None if pixel_size is None else parse_length_nm(pixel_size, "pixel size") / 1e3,
        instrument=Instrument(**instrument),
        **plain,
    )


def parse_shape(text: str) -> tuple[int, int]:
    """Read ``HxW``; raises InputError for anything else."""
    match = re.fullmatch(r"\s*(\d+)\s*[xX\u00d7]\s*(\d+)\s*", text)
    if match is None:
        raise InputError(f"shape {text!r} is not HxW: give rows x columns, such as 7000x9344")
    return int(match[1]), int(match[2])
