"""The interferometer and its faults."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from cpikan.errors import InputError
from cpikan.option import option
from cpikan.psi.simulate.random import generator

_STEPS, _TILTS, _GAINS, _OFFSETS = 11, 12, 13, 14

# GMAX3265 (9344 x 7000), camera-level EMVA 1288 figures: saturation 10.4 ke-, dark noise 8 e-
SENSOR_FULL_WELL_E = 10400.0
SENSOR_READ_NOISE_E = 8.0
_VIGNETTING = "loss of light and of contrast at the corner, 0 to 1 (default: 0.1 and 0.15)"


@dataclass(frozen=True)
class Instrument:
    """Light, detector and faults; by default the noise of a GMAX3265 sensor, slight vignetting, and nothing else.

    ``background`` and ``modulation`` (A and B of the model) are fractions of full scale, ``exposure`` multiplies both
    (above about 1.1 the fringes clip). ``read_noise_dn`` and ``gain_e_per_dn`` default to the sensor's at the given bit
    depth; shot noise is Gaussian with variance signal / gain. ``vignetting_*`` is the loss at the corner of the frame,
    quadratic in the radius. Harmonics are fractions of B, of the same argument. ``step_error_deg`` and ``piston_rad``
    are rms per frame, ``tilt_rad`` the rms at the edge of the wafer (or frame), ``gain_drift`` the relative rms per
    frame; frame 0 of each wavelength has none of the phase faults. ``wavelength_*`` offset whole wavelengths against
    the first. ``dead_fraction`` of the pixels are stuck at 0 or full scale in every frame.
    """

    background: float = 128 / 255
    modulation: float = 100 / 255
    exposure: float = option(1.0, "factor on the light; above about 1.1 fringes saturate", metavar="X")
    read_noise_dn: float | None = option(
        None, "read noise in DN rms (default: that of a 65-megapixel sensor)", flag="--read-noise", metavar="X"
    )
    shot_noise: bool = option(True, "no shot noise", flag="--no-shot-noise")
    gain_e_per_dn: float | None = None
    vignetting_background: float = option(0.10, _VIGNETTING, flag="--vignetting", metavar="X")
    vignetting_modulation: float = option(0.15, _VIGNETTING, flag="--vignetting", metavar="X")
    second_harmonic: float = option(0.0, "detector nonlinearity, fraction of B", metavar="X")
    third_harmonic: float = option(0.0, "detector nonlinearity, fraction of B", metavar="X")
    step_error_deg: float = option(0.0, "phase step error in degrees rms", flag="--step-error", metavar="X")
    piston_rad: float = option(0.0, "piston per frame in rad rms", flag="--piston", metavar="X")
    tilt_rad: float = option(0.0, "tilt per frame in rad rms at the edge", flag="--tilt", metavar="X")
    gain_drift: float = option(0.0, "relative gain per frame, rms", metavar="X")
    wavelength_piston_rad: float = option(
        0.0, "relative piston between wavelengths in rad rms", flag="--wavelength-piston", metavar="X"
    )
    wavelength_tilt_rad: float = option(
        0.0, "relative tilt between wavelengths in rad rms at the edge", flag="--wavelength-tilt", metavar="X"
    )
    dead_fraction: float = option(0.0, "fraction of dead pixels", flag="--dead", metavar="X")

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{entry.name} {value} of the instrument: give a finite number, zero or above")
        if self.gain_e_per_dn == 0:
            raise InputError("gain_e_per_dn 0 means endless noise: give electrons per DN above zero, or shot_noise off")
        for name in ("vignetting_background", "vignetting_modulation", "dead_fraction"):
            if getattr(self, name) > 1:
                raise InputError(f"{name} {getattr(self, name)} of the instrument: give a fraction from 0 to 1")

    @classmethod
    def ideal(cls) -> Instrument:
        """Make an instrument without noise and faults: only quantisation is left."""
        return cls(read_noise_dn=0.0, shot_noise=False, vignetting_background=0.0, vignetting_modulation=0.0)

    @property
    def steps_are_exact(self) -> bool:
        """Tell whether the nominal steps are the true ones for every pixel."""
        return self.step_error_deg == 0 and self.piston_rad == 0 and self.tilt_rad == 0

    def read_noise(self, bit_depth: int) -> float:
        """Read noise in DN at ``bit_depth``."""
        if self.read_noise_dn is not None:
            return float(self.read_noise_dn)
        return SENSOR_READ_NOISE_E * (2**bit_depth - 1) / SENSOR_FULL_WELL_E

    def shot_variance_per_dn(self, bit_depth: int) -> float:
        """Compute the variance of the shot noise in DN^2 per DN of signal; zero when shot noise is off."""
        if not self.shot_noise:
            return 0.0
        gain = self.gain_e_per_dn if self.gain_e_per_dn is not None else SENSOR_FULL_WELL_E / (2**bit_depth - 1)
        return 1.0 / float(gain)


@dataclass(frozen=True)
class FrameFaults:
    """The true faults of the frames: ``step_rad`` (L, K), ``tilt_rad`` (L, K, 2) as (x, y) at the edge, ``gain`` (L, K).

    ``offset_rad`` (L,) and ``offset_tilt_rad`` (L, 2) belong to whole wavelengths.
    """

    step_rad: np.ndarray
    tilt_rad: np.ndarray
    gain: np.ndarray
    offset_rad: np.ndarray
    offset_tilt_rad: np.ndarray

    @property
    def steps_deg(self) -> tuple[tuple[float, ...], ...]:
        """Give the true steps in degrees, cumulative from frame 0, modulo 360 degrees."""
        turned = np.degrees(self.step_rad - self.step_rad[:, :1]) % 360.0
        return tuple(tuple(round(float(step), 9) for step in row) for row in turned)


def draw_faults(instrument: Instrument, steps_deg: np.ndarray, seed: int) -> FrameFaults:
    """Draw the faults of every frame: ``steps_deg`` (L, K) nominal in degrees; the same seed gives the same faults."""
    count = steps_deg.shape
    moving = np.ones(count)
    moving[:, 0] = 0.0  # the gauge: frame 0 of each wavelength is the reference
    draw = generator(seed, _STEPS)
    errors = math.radians(instrument.step_error_deg) * draw.standard_normal(count)
    errors += instrument.piston_rad * draw.standard_normal(count)
    tilt = generator(seed, _TILTS).standard_normal((*count, 2)) * (instrument.tilt_rad / math.sqrt(2.0))
    gain = 1.0 + generator(seed, _GAINS).standard_normal(count) * instrument.gain_drift
    draw = generator(seed, _OFFSETS)
    offset = draw.standard_normal((count[0],)) * instrument.wavelength_piston_rad
    offset_tilt = draw.standard_normal((count[0], 2)) * (instrument.wavelength_tilt_rad / math.sqrt(2.0))
    offset[0], offset_tilt[0] = 0.0, 0.0
    # adding zero turns -0.0 into 0.0
    return FrameFaults(
        np.radians(steps_deg) + moving * errors, moving[..., None] * tilt + 0.0, gain, offset, offset_tilt
    )
