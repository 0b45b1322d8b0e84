"""The demonstration: simulate a wafer, reconstruct it, compare it with the truth, write the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.pipeline.maps.evaluate import evaluate
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.simulation.simulate import simulate
from cpikan.pipeline.stacks.stack import open_stack
from cpikan.psi.simulate import SimulationSettings
from cpikan.report.html import write_report
from cpikan.streaming.events import Events

WAVELENGTHS_NM = (5000.0, 5500.0, 6050.0, 6655.0)
FULL, SMALL = (7000, 9344), (875, 1168)


def run_demo(folder: str | Path, *, small: bool, overwrite: bool, progress: bool | Events = True) -> dict[str, Any]:
    """Make ``folder`` with frames/, height.zarr and report.html; returns the figures of every step.

    The full size is 9344 x 7000 pixels and 16 frames (1.1 GB on disk); ``small`` is an eighth of it on a side. Raises
    InputError when the folder holds something and ``overwrite`` is off.
    """
    place = Path(folder)
    if place.exists() and any(place.iterdir()) and not overwrite:
        raise InputError(f"{place} is not empty: give another folder with -o, or add --overwrite")
    place.mkdir(parents=True, exist_ok=True)
    frames, output, page = place / "frames", place / "height.zarr", place / "report.html"
    settings = SimulationSettings(shape=SMALL if small else FULL, wavelengths_nm=WAVELENGTHS_NM, seed=7)
    shutil.rmtree(frames, ignore_errors=True)
    simulated = simulate(frames, settings, overwrite=True, progress=progress)
    with open_stack(frames) as stack:
        height_map = reconstruct(stack, output, overwrite=True, progress=progress)
    truth = frames / "truth.npy"
    figures = evaluate(output, truth, progress=progress)
    write_report(page, height_map, truth=truth, evaluation=figures, progress=progress)
    return {
        "simulate": {key: simulated[key] for key in ("shape", "seconds", "megapixels_per_second", "output")},
        "reconstruct": height_map.summary,
        "evaluate": figures,
        "report": str(page),
    }
