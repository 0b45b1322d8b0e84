"""How the frames were taken: wavelengths, phase steps and what is known of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cpikan.errors import InputError, unknown_name
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
            if not math.isfinite(value) or value <= 0:
                raise InputError(f"wavelength {value} nm is not positive: give one above zero")
        if len(set(self.wavelengths_nm)) != len(self.wavelengths_nm):
            raise InputError(f"wavelengths {list(self.wavelengths_nm)} nm repeat one: give each wavelength once")
        if self.pixel_um is not None and pixel_pair(self.pixel_um) is None:
            raise InputError(f"pixel size {self.pixel_um} um is not positive: give one above zero, or (y, x)")
        if self.order not in FRAME_ORDERS:
            raise unknown_name("order of the frames", str(self.order), FRAME_ORDERS)
        self._check_pistons()
        if self.steps not in STEP_STATES:
            raise unknown_name("state of the steps", self.steps, STEP_STATES)
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
