"""The linear part of the forward model of a frame, written down once."""

from __future__ import annotations

import numpy as np

_TRIALS = 256


def fringe_columns(steps_rad: np.ndarray, harmonics: tuple[int, ...] = ()) -> np.ndarray:
    """Build the columns 1, cos(h d), -sin(h d), h = 1 and ``harmonics``, of steps d (..., K): (..., K, 3 + 2 H).

    Frames are these columns times A, B cos(phi), B sin(phi) and the two numbers of each further harmonic.
    """
    columns = [np.ones_like(steps_rad)]
    for order in (1, *harmonics):
        columns += [np.cos(order * steps_rad), -np.sin(order * steps_rad)]
    return np.stack(columns, axis=-1)


def parity_vector(columns: np.ndarray) -> np.ndarray:
    """Find a unit vector (K,) that none of the ``columns`` (K, M) reaches; zeros where they reach everything.

    The sum of K frames that it weighs is free of A, B and phi: noise alone, unless the frames contradict each other. Among the
    vectors of that kind, the parity space of fault detection, one is taken whose smallest entry is large, so that a fault in
    any one frame is seen.
    """
    reached, _, _ = np.linalg.svd(columns)
    free = reached[:, np.linalg.matrix_rank(columns) :]
    if free.shape[1] == 0:
        return np.zeros(len(columns))
    trials = free @ np.random.default_rng(0).standard_normal((free.shape[1], _TRIALS))
    trials /= np.linalg.norm(trials, axis=0)
    return np.asarray(trials[:, np.abs(trials).min(axis=0).argmax()])
