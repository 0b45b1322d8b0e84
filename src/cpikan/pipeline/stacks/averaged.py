"""Stacks whose frames are averaged: did the phases stay where they were?"""

from __future__ import annotations

import math

import numpy as np

from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.calibration.movement.stack_drift import StackDrift, block_phases, determined, phasors, stack_drift
from cpikan.psi.model.acquisition import FrameOrder
from cpikan.psi.model.caution import Caution

_BANDS, _ROWS = 8, 8
_LOST = 0.02  # of the contrast: phases that lie 0.2 rad RMS apart


def drift_caution(stack: FrameStack, steps_deg: np.ndarray, order: FrameOrder) -> Caution | None:
    """Say by how much phases moved between the stacks whose mean ``stack`` is; None where that does no harm.

    Eight bands of rows of each stack are read; ``steps_deg``, (L, K), are the steps in use and ``order`` that of the frames.
    """
    parts = [one.in_order(order) for one in stack.averaged]
    waves = [i for i, steps in enumerate(steps_deg) if determined(steps)]
    if not parts or steps_deg.shape[1] != parts[0].shape[1]:
        return None
    found: dict[int, list[np.ndarray]] = {i: [] for i in waves}
    height = stack.averaged[0].shape[2]
    for start in sorted({int(place) for place in np.linspace(0, max(height - _ROWS, 0), _BANDS)}):
        bands = [one.rows(start, min(start + _ROWS, height)) for one in parts]
        for i in waves:
            found[i].append(block_phases(np.stack([phasors(band[i], steps_deg[i]) for band in bands])))
    drifts = {i: stack_drift(np.concatenate(blocks, axis=1)) for i, blocks in found.items()}
    known = [(drift, i) for i, drift in drifts.items() if drift is not None]
    worst: tuple[StackDrift, int] | None = max(known, key=lambda one: one[0].lost, default=None)
    if worst is None or worst[0].lost < _LOST:
        return None
    drift, wave = worst
    moved_nm = drift.phase_rad * stack.acquisition.wavelengths_nm[wave] / (4 * math.pi)
    text = (
        f"phases moved by up to {drift.phase_rad:.2f} rad ({moved_nm:.3g} nm) on average between the {len(parts)} stacks that "
        f"are averaged, whose mean loses {100 * drift.lost:.0f} % of its contrast in places: measure each, and average the "
        "maps (cpikan map average)"
    )
    return Caution("stacks-drifted", text).of_wavelength(wave, len(steps_deg))
