"""How the frames were taken: wavelengths, phase steps and what is known of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cpikan.errors import NUMBER, InputError, check_name, check_type
from cpikan.units import PixelUm, pixel_pair

StepState = Literal["trusted", "nominal", "unknown"]
FrameOrder = Literal["wavelength-major", "step-major"]
FRAME_ORDERS: tuple[FrameOrder, ...] = ("wavelength-major", "step-major")
STEP_STATES: tuple[StepState, ...] = ("trusted", "nominal", "unknown")


@dataclass(frozen=True)
class Acquisition:
    """Metadata of a stack, checked for consistency where it is made.

    ``wavelengths_nm`` has one entry per wavelength, ``phase_steps_deg`` one tuple of cumulative steps per wavelength (or is
    None when unknown). ``steps`` says what the given steps are worth: ``trusted`` (used as given), ``nominal`` (start of an
    estimate) or ``unknown``; ``steps_said`` is False where nobody said so and ``trusted`` is only the default, which gives way
    to frames that contradict it. ``pixel_um`` is the lateral sampling (where pixels are not square, (y, x)),
    ``bit_depth`` the number of significant bits; both may be None. ``order`` says how the frames follow each other: all
    steps of a wavelength, or all wavelengths of a step. ``pistons_deg``, one per wavelength, are known phases at height zero
    (None: unknown), and are what phi_l has beside 4 pi h / lambda_l. Raises InputError when the parts contradict each other.
    """

    wavelengths_nm: tuple[float, ...]
    phase_steps_deg: tuple[tuple[float, ...], ...] | None = None
    steps: StepState = "unknown"
    pixel_um: PixelUm | None = None
    bit_depth: int | None = None
    steps_said: bool = True
    order: FrameOrder = "wavelength-major"
    pistons_deg: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.wavelengths_nm:
            raise InputError(
                'no wavelength given: say which, such as wavelengths = ["632.8 nm"] or --wavelength 632.8nm'
            )
        for value in self.wavelengths_nm:
            check_type("a wavelength", value, NUMBER, "numbers of nm, as (632.8,)")
            if not math.isfinite(value) or value <= 0:
                raise InputError(f"wavelength {value} nm is not positive: give one above zero")
        if len(set(self.wavelengths_nm)) != len(self.wavelengths_nm):
            raise InputError(f"wavelengths {list(self.wavelengths_nm)} nm repeat one: give each wavelength once")
        if self.pixel_um is not None and pixel_pair(self.pixel_um) is None:
            raise InputError(f"pixel size {self.pixel_um} um is not positive: give one above zero, or (y, x)")
        check_name("order of the frames", str(self.order), FRAME_ORDERS)
        self._check_pistons()
        check_name("state of the steps", self.steps, STEP_STATES)
        if self.phase_steps_deg is None:
            if self.steps != "unknown":
                raise InputError(
                    f"steps are called {self.steps!r} but no phase_steps are given: give them, or say unknown"
                )
            return
        if len(self.phase_steps_deg) != len(self.wavelengths_nm):
            raise InputError(
                f"{len(self.phase_steps_deg)} lists of phase steps for {len(self.wavelengths_nm)} wavelengths: give one list "
                "for all or one per wavelength"
            )
        for row in self.phase_steps_deg:
            if not all(math.isfinite(step) for step in row):
                raise InputError(
                    f"phase steps {list(row)} are not all finite numbers: give degrees, such as 0,90,180,270"
                )

    def _check_pistons(self) -> None:
        if self.pistons_deg is None:
            return
        if len(self.pistons_deg) != len(self.wavelengths_nm):
            raise InputError(
                f"{len(self.pistons_deg)} pistons for {len(self.wavelengths_nm)} wavelengths: give one per wavelength, "
                "in degrees"
            )
        if not all(math.isfinite(value) for value in self.pistons_deg):
            raise InputError(
                f"pistons {list(self.pistons_deg)} are not all finite numbers: give degrees, such as 0,12.5"
            )

    @property
    def frames_per_wavelength(self) -> int | None:
        return None if self.phase_steps_deg is None else len(self.phase_steps_deg[0])


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
