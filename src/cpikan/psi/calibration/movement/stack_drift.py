"""Phases that moved between stacks whose frames are averaged: the mean then has less contrast than each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cpikan.psi.model.acquisition import step_condition

BLOCK_PX = 64  # columns of a block; its rows are those of a band
_FRINGES = 0.5  # of 1: how alike phasors of neighbours are where there are fringes and not noise alone
_SHARE = 0.9  # of the blocks lose no more contrast than is told


@dataclass(frozen=True)
class StackDrift:
    """How far (rad) the mean phase of a stack lies from that of the first, at most, and the share of contrast that the mean of
    all stacks loses in nine of ten places."""

    phase_rad: float
    lost: float


def phasors(frames: np.ndarray, steps_deg: np.ndarray) -> np.ndarray:
    """Demodulate frames (K, ...) of one wavelength by least squares; complex (...), 0 where a sample is no number."""
    angle = np.radians(steps_deg)
    weights = np.linalg.pinv(np.stack([np.ones_like(angle), np.cos(angle), -np.sin(angle)], axis=1))
    _, real, imag = np.tensordot(weights, np.asarray(frames, np.float64), axes=1)
    found = real + 1j * imag
    return np.where(np.isfinite(found), found, 0)


def determined(steps_deg: np.ndarray) -> bool:
    """Tell whether steps determine a phase."""
    return len(steps_deg) >= 3 and math.isfinite(step_condition(tuple(steps_deg)))


def block_phases(stacks: np.ndarray) -> np.ndarray:
    """Compare phasors (S, n, W) of a band with those of the first stack: unit phasors (S, blocks), 0 where one has none.

    Blocks without fringes are left out.
    """
    found = []
    for left in range(0, stacks.shape[2], BLOCK_PX):
        block = stacks[:, :, left : left + BLOCK_PX]
        beside = block[0, :, 1:] * block[0, :, :-1].conj()
        if np.abs(beside.sum()) > _FRINGES * np.abs(beside).sum():
            sums = (block * block[0].conj()).sum(axis=(1, 2))
            found.append(sums / np.maximum(np.abs(sums), np.finfo(float).tiny))
    return np.array(found, complex).reshape(-1, len(stacks)).T


def stack_drift(phases: np.ndarray) -> StackDrift | None:
    """Sum up unit phasors (S, blocks) of `block_phases`; None where no block has fringes."""
    if not phases.size:
        return None
    lost = 1 - np.abs(phases.mean(axis=0))
    return StackDrift(float(np.abs(np.angle(phases.sum(axis=1))).max()), float(np.quantile(lost, _SHARE)))
