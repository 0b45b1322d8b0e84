"""Simulated stacks to train on: many seeds, surfaces and noises, written once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from cpikan.errors import InputError, check_names
from cpikan.images.patches.source import StackSource
from cpikan.pipeline.simulation.simulate import simulate
from cpikan.pipeline.training.training_stacks import open_training_stack
from cpikan.psi.calibration.wavelengths.planning import widest_range_nm
from cpikan.psi.simulate import Instrument, SimulationSettings
from cpikan.psi.simulate.settings import SURFACE_KINDS, surface_preset
from cpikan.psi.simulate.varied import varied_surface
from cpikan.storage.atomic import plain
from cpikan.streaming.events import Events
from cpikan.version import VERSION

VARIED = "varied"  # a surface of any kind and scale per seed
_FULL, _MIDDLE_DN, _FRINGES_DN = 255, 128.0, 100.0  # of 8 bit
_HEADROOM_SIGMAS = 4.0  # of noise that fit between the fringes and the ends of the scale
_REACH_SHARE = 0.45  # of the range, on either side of the middle: noise needs the rest
_DETAILS_NM = 750.0  # what dies, bumps, scratches and nanotopography add to the form
_DRAW = 21


@dataclass(frozen=True)
class SimulatedSpec:
    """Stacks to simulate: one per seed ``first_seed`` .. ``first_seed + count - 1``, each of ``shape`` (H, W) and ``frames``
    per wavelength.

    A seed draws its surface from ``surfaces`` (presets, or "varied": one of many kinds and scales), its wavelengths from
    ``wavelengths_nm`` (several tuples, or one), and its phase noise between the limits ``phase_noise_rad``, evenly in the
    logarithm. Bow and warp of several wavelengths are as large as fits a range in which one pixel in
    ``1 / wrong_order_rate`` gets a wrong order. ``pixel_um`` are pixel sizes to draw from, each showing the centre of a wafer;
    without any the whole wafer is shown ("varied" surfaces have a pixel size of their own). ``step_error_deg`` and
    ``tilt_rad`` are rms faults of every frame, of which the reconstruction knows nothing beforehand. Raises InputError for
    what cannot be simulated.
    """

    count: int = 8
    first_seed: int = 0
    shape: tuple[int, int] = (1024, 1024)
    frames: int = 4
    surfaces: tuple[str, ...] = SURFACE_KINDS
    wavelengths_nm: tuple[tuple[float, ...], ...] = ((5000.0, 5500.0, 6050.0, 6655.0),)
    phase_noise_rad: tuple[float, float] = (0.02, 0.4)
    pixel_um: tuple[float, ...] = ()
    wrong_order_rate: float = 1e-3
    step_error_deg: float = 0.0
    tilt_rad: float = 0.0

    def __post_init__(self) -> None:
        waves = self.wavelengths_nm
        if waves and not isinstance(waves[0], Sequence):
            waves = (waves,)
        object.__setattr__(self, "wavelengths_nm", tuple(tuple(float(v) for v in one) for one in waves))
        for name in ("surfaces", "shape", "phase_noise_rad", "pixel_um"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.count < 1:
            raise InputError(f"{self.count} simulated stacks: give 1 or more")
        check_names("kind of surface", self.surfaces, (*SURFACE_KINDS, VARIED))
        if self.pixel_um and VARIED in self.surfaces:
            raise InputError(
                f"pixel_um and {VARIED!r} surfaces, which have pixel sizes of their own: leave one of them out"
            )
        if not self.surfaces or not self.wavelengths_nm:
            raise InputError("simulated stacks need surfaces and wavelengths: give one of each or more")
        low, high = (*self.phase_noise_rad, math.nan)[:2]
        if len(self.phase_noise_rad) != 2 or not 0.01 <= low <= high <= 1:
            raise InputError(
                f"phase_noise_rad {list(self.phase_noise_rad)}: give two rising limits from 0.01 (below it the 8 bits of "
                "the frames are the noise) to 1"
            )
        if not 0 < self.wrong_order_rate <= 0.1:
            raise InputError(f"wrong_order_rate {self.wrong_order_rate}: give a share above 0, at most 0.1")
        for seed in self.seeds:
            self.settings(seed)

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.count)

    def settings(self, seed: int) -> SimulationSettings:
        """Draw the simulation of one seed."""
        return self._drawn(seed)[0]

    def range_nm(self, seed: int) -> float | None:
        """Draw the height range in nm that the stack of a seed is reconstructed with; None for one wavelength."""
        return self._drawn(seed)[1]

    def _drawn(self, seed: int) -> tuple[SimulationSettings, float | None]:
        if seed < 0:
            raise InputError(f"seed {seed} is negative: give 0 or more")
        draw = np.random.default_rng((seed, _DRAW))
        surface = self.surfaces[int(draw.integers(len(self.surfaces)))]
        waves = self.wavelengths_nm[int(draw.integers(len(self.wavelengths_nm)))]
        low, high = np.log(self.phase_noise_rad)
        noise = float(np.exp(draw.uniform(low, high)))
        pixel_um = self.pixel_um[int(draw.integers(len(self.pixel_um)))] if self.pixel_um else None
        instrument = noisy_instrument(noise, self.frames, self.step_error_deg, self.tilt_rad)
        preset = surface_preset("wafer" if surface == VARIED else surface, waves)
        reach = None
        if len(waves) > 1:
            reach = widest_range_nm(waves, (noise,) * len(waves), rate=self.wrong_order_rate)
            peak_nm = min(preset.form_peak_nm, max(reach * _REACH_SHARE - _DETAILS_NM, 0.0))
            preset = replace(preset, form_peak_nm=peak_nm)
        if surface == VARIED:
            drawn, pixel_um = varied_surface(seed, min(self.shape), preset.form_peak_nm)
            alone = replace(drawn, max_slope_nm=preset.max_slope_nm, die_step_nm=0.0, particles=0)
            preset = drawn if len(waves) > 1 else alone  # what one wavelength can unwrap
        settings = SimulationSettings(
            self.shape,
            waves,
            frames=self.frames,
            seed=seed,
            surface=preset,
            instrument=instrument,
            pixel_um=pixel_um,
        )
        return settings, reach


def noisy_instrument(
    phase_noise_rad: float, frames: int, step_error_deg: float = 0.0, tilt_rad: float = 0.0
) -> Instrument:
    """Design an instrument whose phases have the noise ``phase_noise_rad`` (rms, in the middle of the field) at 8 bit.

    By sigma_phi = sqrt(2 / N) sigma_I / B with N frames; the quantisation's 1 / 12 DN^2 is part of sigma_I. The fringes are
    made as weak as it takes that four sigmas of noise are not clipped.
    """
    share = phase_noise_rad * math.sqrt(frames / 2)  # sigma_I / B
    fringes = min(_FRINGES_DN, (_FULL - _MIDDLE_DN) / (1 + _HEADROOM_SIGMAS * share))
    variance = (share * fringes) ** 2 - 1 / 12
    return Instrument(
        background=_MIDDLE_DN / _FULL,
        modulation=fringes / _FULL,
        read_noise_dn=math.sqrt(max(variance, 0.0)),
        shot_noise=False,
        step_error_deg=step_error_deg,
        tilt_rad=tilt_rad,
    )


def simulated_stacks(
    cache: str | Path, spec: SimulatedSpec, *, progress: bool | Events = True, frames: bool = False
) -> list[StackSource]:
    """Simulate the stacks of ``spec`` into ``cache``, or take those that are there, and open them for training.

    Each seed has a folder whose name holds a checksum of all that decides its bytes; one that was interrupted is
    finished. ``frames`` as in `open_training_stacks`.
    """
    place = Path(cache)
    sources = []
    for seed in spec.seeds:
        settings = spec.settings(seed)
        said = json.dumps(plain(asdict(settings)), sort_keys=True) + VERSION
        folder = place / f"simulated-{seed}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
        simulate(folder, settings, resume=True, progress=progress)
        reach = spec.range_nm(seed)
        sources.append(open_training_stack(folder, place, progress=progress, frames=frames, range_nm=reach))
    return sources
