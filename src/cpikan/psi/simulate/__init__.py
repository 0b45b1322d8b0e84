"""Surfaces, instruments and faults: frames and their truth, row by row, from a seed."""

from cpikan.psi.simulate.settings import SURFACE_KINDS, Instrument, SimulationSettings, SurfaceSettings, surface_preset
from cpikan.psi.simulate.simulator import Simulator, frame_rows, simulate_stack, surface_rows

__all__ = [
    "SURFACE_KINDS",
    "Instrument",
    "SimulationSettings",
    "Simulator",
    "SurfaceSettings",
    "frame_rows",
    "simulate_stack",
    "surface_preset",
    "surface_rows",
]
