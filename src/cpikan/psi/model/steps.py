"""Do given phase steps determine a phase?"""

from __future__ import annotations

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.model.acquisition import Acquisition

MAX_CONDITION = 100.0  # 0, 10, 20 deg has 280: the phase would be some 100 times as noisy as from even steps
_SAME_DEG = 1e-6


def step_condition(steps_deg: tuple[float, ...]) -> float:
    """Compute the condition number of the matrix [1, cos d, sin d]: sqrt(2) for even steps, inf if singular."""
    steps_rad = np.deg2rad(np.asarray(steps_deg, dtype=np.float64))
    matrix = np.stack([np.ones_like(steps_rad), np.cos(steps_rad), np.sin(steps_rad)], axis=1)
    singular = np.linalg.svd(matrix, compute_uv=False)
    return float(singular[0] / singular[-1]) if len(steps_deg) >= 3 and singular[-1] > 0 else float("inf")


def check_steps(acquisition: Acquisition) -> None:
    """Refuse given steps from which background, modulation and phase cannot be told apart; unknown steps pass.

    Raises InputError when a wavelength has fewer than three steps, fewer than three distinct positions on the circle,
    or steps so close together that their least-squares matrix has a condition number above 100.
    """
    for wavelength, steps in zip(acquisition.wavelengths_nm, acquisition.phase_steps_deg or (), strict=False):
        given = f"phase steps {', '.join(f'{step:g}' for step in steps)} deg at {wavelength:g} nm"
        if len(steps) == 2 and acquisition.steps == "nominal":
            continue  # background and modulation are smooth fields then, and the step is fitted
        if len(steps) < 3:
            hint = " (or two with --steps nominal)" if len(steps) == 2 else ""
            raise InputError(
                f"{given} are {len(steps)}: three unknowns a pixel need three or more per wavelength{hint}"
            )
        places = _distinct_places(steps)
        if places < 3:
            raise InputError(
                f"{given} are {places} distinct positions modulo 360: give three or more, such as 0,90,180,270"
            )
        condition = step_condition(steps)
        if not condition <= MAX_CONDITION:
            raise InputError(
                f"{given} lie so close together that noise decides the phase (condition number {condition:.0f}, at "
                f"most {MAX_CONDITION:.0f} is allowed): spread them over the circle, such as 0,90,180,270"
            )


def _distinct_places(steps_deg: tuple[float, ...]) -> int:
    """Count the positions on the circle that the steps take."""
    around = np.sort(np.mod(np.asarray(steps_deg, dtype=np.float64), 360.0))
    gaps = np.diff(around, append=around[0] + 360.0)
    return max(1, int(np.count_nonzero(gaps > _SAME_DEG)))
