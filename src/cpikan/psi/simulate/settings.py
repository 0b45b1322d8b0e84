"""Settings of a simulation: the surface, the interferometer and its faults, the frames, the seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from cpikan.errors import InputError, check_name
from cpikan.option import option
from cpikan.psi.model.acquisition import Acquisition, check_steps
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


SURFACE_KINDS = ("wafer", "smooth", "etched", "bumps")
_FORM_PEAK_NM = 10500.0  # leaves 1.5 um of a +-12 um range for everything else
_BEAT_SHARE = 0.35  # of the unambiguous range, on either side: the rest is for details and noise
_SLOPE_SHARE = 1 / 8  # of a wavelength per pixel: half of what one wavelength can unwrap (a quarter)


@dataclass(frozen=True)
class SurfaceSettings:
    """The parts of a surface: amplitudes in nm, lengths in mm on the wafer, counts; zero switches a part off.

    ``form`` is bow and warp with the largest deviation ``form_peak_nm``, of which warp is about ``warp_share``;
    ``nano`` is nanotopography of rms ``nano_rms_nm`` in the band ``nano_band_mm`` of spatial wavelengths (not below 12
    pixels, not above the field); dies are blocks of ``die_step_nm`` times 0..``die_levels`` below the streets; particles
    stand out and have no fringes. ``max_slope_nm`` (nm per pixel) scales form, nanotopography, bumps and scratches down
    where pixels are coarse; None sets no limit.
    """

    disc: bool = True
    diameter_mm: float = 300.0
    notch_mm: float = 1.0
    form_peak_nm: float = _FORM_PEAK_NM
    warp_share: float = 0.35
    nano_rms_nm: float = 40.0
    nano_band_mm: tuple[float, float] = (1.0, 20.0)
    die_step_nm: float = 120.0
    die_levels: int = 2
    die_mm: tuple[float, float] = (26.0, 33.0)
    street_mm: float = 0.4
    bumps: int = 10
    bump_nm: float = 250.0
    bump_mm: float = 2.5
    scratches: int = 4
    scratch_nm: float = 150.0
    scratch_mm: float = 0.2
    particles: int = 8
    particle_nm: float = 500.0
    particle_mm: float = 0.5
    max_slope_nm: float | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            for part in value if isinstance(value, tuple) else (value,):
                if part is not None and not (math.isfinite(part) and part >= 0):
                    raise InputError(f"{entry.name} {value} of the surface: give finite numbers, zero or above")
        if self.diameter_mm <= 0 or min(self.die_mm) <= 0 or not 0 < self.nano_band_mm[0] < self.nano_band_mm[1]:
            raise InputError("diameter_mm, die_mm and a rising nano_band_mm must be above zero: give lengths in mm")


def surface_preset(kind: str, wavelengths_nm: Sequence[float]) -> SurfaceSettings:
    """Look up the surface ``kind`` ("wafer", "smooth", "etched", "bumps") in a size that the wavelengths can measure.

    Several wavelengths: bow up to 10.5 um, less where the widest beat of a pair is short. One wavelength: slopes stay
    below an eighth of a wavelength per pixel and the wafer has no etched steps. Raises InputError for an unknown kind.
    """
    check_name("kind of surface", kind, SURFACE_KINDS)
    waves = sorted(Acquisition(tuple(wavelengths_nm)).wavelengths_nm)  # checks them
    base = SurfaceSettings()
    if len(waves) == 1:
        base = replace(base, max_slope_nm=_SLOPE_SHARE * waves[0], die_step_nm=0.0)
        etched = replace(base, die_step_nm=_SLOPE_SHARE * waves[0], die_levels=1)
    else:
        beat = max(a * b / (2 * (b - a)) for a, b in itertools.pairwise(waves))
        peak = min(_FORM_PEAK_NM, _BEAT_SHARE * beat)
        base = replace(base, form_peak_nm=peak)
        etched = replace(base, die_levels=4)
    plain = replace(base, disc=False, die_step_nm=0.0, bumps=0, scratches=0, particles=0)
    bumpy = replace(base, die_step_nm=0.0, bumps=120, bump_nm=500.0, scratches=0, particles=0)
    return {
        "wafer": base,
        "smooth": plain,
        "etched": replace(etched, bumps=0, scratches=0, particles=0),
        "bumps": bumpy,
    }[kind]


@dataclass(frozen=True)
class SimulationSettings:
    """Settings of one simulated acquisition; equal settings give equal bytes.

    ``shape`` is (H, W); ``frames`` per wavelength (default 4) spread over one period, unless ``phase_steps_deg`` gives
    them: one tuple for all wavelengths or one tuple per wavelength. ``surface`` is the name of a preset or explicit
    settings. ``pixel_um`` None shows the whole wafer; a number shows its centre. Raises InputError for what cannot be
    simulated.

    >>> settings = SimulationSettings(shape=(256, 256), wavelengths_nm=(5000.0, 5500.0, 6050.0, 6655.0), seed=3)
    >>> frames, truth = simulate_stack(settings)    # uint8 (4, 4, 256, 256), float32 nm (256, 256)
    """

    shape: tuple[int, int]
    wavelengths_nm: tuple[float, ...] = (632.8,)
    frames: int | None = None
    phase_steps_deg: tuple[float, ...] | tuple[tuple[float, ...], ...] | None = None
    seed: int = 0
    bit_depth: int = 8
    surface: SurfaceSettings | str = "wafer"
    instrument: Instrument = field(default_factory=Instrument)
    pixel_um: float | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or not all(isinstance(n, int) and n >= 8 for n in self.shape):
            raise InputError(
                f"shape {self.shape} cannot be simulated: give height and width from 8 pixels, such as 512x512"
            )
        if not 8 <= self.bit_depth <= 16:
            raise InputError(f"bit depth {self.bit_depth} is not supported: give 8 to 16")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed {self.seed} is out of range: give a whole number from 0 to 2**63 - 1")
        if self.pixel_um is not None and not (math.isfinite(self.pixel_um) and self.pixel_um > 0):
            raise InputError(f"pixel size {self.pixel_um} um is not a positive length: give one above zero")
        self._check_steps()
        check_steps(self.acquisition)
        _ = self.resolved_surface  # checks its name

    def _check_steps(self) -> None:
        if self.frames is not None and not 3 <= self.frames <= 1000:
            raise InputError(
                f"{self.frames} frames per wavelength: three unknowns a pixel need three frames, give 3 to 1000"
            )
        if self.phase_steps_deg is None:
            return
        rows = self.steps_deg
        if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
            raise InputError("phase steps must be lists of one equal length: give the same number for every wavelength")
        if self.frames not in (None, len(rows[0])):
            raise InputError(
                f"{len(rows[0])} phase steps for {self.frames} frames: give as many, or leave one of them out"
            )

    @property
    def steps_deg(self) -> tuple[tuple[float, ...], ...]:
        """Give the nominal steps in degrees, one tuple per wavelength."""
        if self.phase_steps_deg is None:
            count = 4 if self.frames is None else self.frames
            return tuple(tuple(360.0 * k / count for k in range(count)) for _ in self.wavelengths_nm)
        if all(isinstance(row, tuple | list) for row in self.phase_steps_deg):
            return tuple(tuple(float(step) for step in row) for row in self.phase_steps_deg)  # type: ignore[union-attr]
        return tuple(tuple(float(step) for step in self.phase_steps_deg) for _ in self.wavelengths_nm)  # type: ignore[arg-type]

    @property
    def resolved_surface(self) -> SurfaceSettings:
        """Give the settings of the surface, with a preset's name looked up."""
        if isinstance(self.surface, SurfaceSettings):
            return self.surface
        return surface_preset(self.surface, self.wavelengths_nm)

    @property
    def sampling_um(self) -> float:
        """Give the size of a pixel in um: as given, or such that the wafer fills 96 % of the shorter side."""
        if self.pixel_um is not None:
            return self.pixel_um
        return round(1e3 * self.resolved_surface.diameter_mm / (0.96 * min(self.shape)), 4)

    @property
    def stack_shape(self) -> tuple[int, int, int, int]:
        """Give the shape (L, K, H, W) of the frames."""
        return (len(self.wavelengths_nm), len(self.steps_deg[0]), *self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Choose uint8, or uint16 above 8 bit."""
        return np.dtype(np.uint8 if self.bit_depth == 8 else np.uint16)

    @property
    def acquisition(self) -> Acquisition:
        """Describe the acquisition as a metrologist would know it: nominal steps, trusted only when they are exact."""
        return Acquisition(
            wavelengths_nm=tuple(float(value) for value in self.wavelengths_nm),
            phase_steps_deg=self.steps_deg,
            steps="trusted" if self.instrument.steps_are_exact else "nominal",
            pixel_um=self.sampling_um,
            bit_depth=self.bit_depth,
        )
