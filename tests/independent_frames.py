"""Frames of a phase-shifting interferometer from the physics alone, for tests that must not trust our own simulator.

Nothing of the package is imported and every formula is written out here: two-beam interference in reflection,
``I = A + B [cos p + h2 cos 2p + h3 cos 3p]`` with ``p = 4 pi h / lambda + step + tilt + defocus``, steps with errors, a tilt
and a defocus per frame, a piston and a tilt between the wavelengths, uneven background and modulation, read noise, shot
noise and an analogue-to-digital converter. The first frame of every wavelength is the reference: no step, tilt or defocus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Faults:
    """What is wrong with the instrument; the defaults are a perfect one that digitises to 8 bit.

    Phases are in radians: ``tilt_rad`` at the far end of each axis and ``defocus_rad`` at the corner of the field, both
    standard deviations over the frames. ``harmonic2`` and ``harmonic3`` are shares of the fringe amplitude.
    ``background`` and ``modulation`` are the largest relative departures of A and B from even illumination.
    ``read_noise`` is a share of full scale, ``full_well`` the electrons at full scale (None: no shot noise). ``bits`` is
    the converter's resolution, at most 16 (None: floats in [0, 1], not clipped). ``fringes`` is the peak to valley of the
    surface in fringes of the first wavelength, ``holes`` the number of discs without surface, ``aperture`` the diameter
    of the round field as a share of the image diagonal (1: the whole image).
    """

    step_error_deg: float = 0.0
    tilt_rad: float = 0.0
    defocus_rad: float = 0.0
    harmonic2: float = 0.0
    harmonic3: float = 0.0
    background: float = 0.0
    modulation: float = 0.0
    read_noise: float = 0.0
    full_well: float | None = None
    bits: int | None = 8
    fringes: float = 12.0
    piston_rad: float = 0.0
    wavelength_tilt_rad: float = 0.0
    holes: int = 0
    aperture: float = 1.0


@dataclass(frozen=True)
class Scene:
    """A stack with everything that made it.

    ``frames`` (L, K, H, W); ``height_nm`` (H, W), defined everywhere; ``mask`` True where there is surface; ``steps_deg``
    (L, K) as applied, cumulative, at the centroid of the mask; ``tilt_rad`` (L, K, 2) per unit of (y, x) where each axis of
    the image spans 2 units; ``defocus_rad`` (L, K); ``piston_rad`` (L,) and ``wavelength_tilt_rad`` (L, 2) between the
    wavelengths, zero for the first; ``background`` and ``amplitude`` (L, H, W) as shares of full scale.
    """

    frames: np.ndarray
    height_nm: np.ndarray
    mask: np.ndarray
    wavelengths_nm: tuple[float, ...]
    steps_deg: np.ndarray
    tilt_rad: np.ndarray
    defocus_rad: np.ndarray
    piston_rad: np.ndarray
    wavelength_tilt_rad: np.ndarray
    background: np.ndarray
    amplitude: np.ndarray


def make_stack(
    seed: int,
    shape: tuple[int, int],
    wavelengths_nm: Sequence[float],
    steps_deg: Sequence[float] | Sequence[Sequence[float]],
    faults: Faults | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames (L, K, H, W), the true height in nm (H, W) and the mask (H, W); ``steps_deg`` are the nominal cumulative steps."""
    scene = make_scene(seed, shape, wavelengths_nm, steps_deg, faults)
    return scene.frames, scene.height_nm, scene.mask


def make_scene(
    seed: int,
    shape: tuple[int, int],
    wavelengths_nm: Sequence[float],
    steps_deg: Sequence[float] | Sequence[Sequence[float]],
    faults: Faults | None = None,
) -> Scene:
    """As ``make_stack``, with the faults that were drawn."""
    f = faults or Faults()
    rng = np.random.default_rng(seed)
    waves = tuple(float(w) for w in wavelengths_nm)
    nominal = np.atleast_2d(np.asarray(steps_deg, float))
    if len(nominal) == 1:
        nominal = np.repeat(nominal, len(waves), axis=0)
    n_waves, n_frames = nominal.shape
    height = surface_nm(rng, shape, f.fringes * waves[0] / 2)
    mask = field_mask(rng, shape, f)

    later = np.ones((n_waves, n_frames))
    later[:, 0] = 0.0  # the first frame is the reference
    steps = nominal + later * rng.normal(0.0, 1.0, later.shape) * f.step_error_deg
    tilt = later[..., None] * rng.normal(0.0, 1.0, (*later.shape, 2)) * f.tilt_rad
    defocus = later * rng.normal(0.0, 1.0, later.shape) * f.defocus_rad
    other = np.arange(n_waves) > 0
    piston = other * rng.normal(0.0, 1.0, n_waves) * f.piston_rad
    wave_tilt = other[:, None] * rng.normal(0.0, 1.0, (n_waves, 2)) * f.wavelength_tilt_rad
    background = np.stack([0.46 * uneven(rng, shape, f.background) for _ in waves])
    amplitude = np.stack([0.30 * uneven(rng, shape, f.modulation) for _ in waves])
    amplitude[:, ~mask] = 0.0
    background[:, ~mask] *= 0.4

    y, x = centred_coordinates(mask)
    frames: np.ndarray = np.empty((n_waves, n_frames, *shape), np.float32 if f.bits is None else converter_type(f.bits))
    for w in range(n_waves):
        surface = 4.0 * np.pi * height / waves[w] + piston[w] + wave_tilt[w, 0] * y + wave_tilt[w, 1] * x
        for k in range(n_frames):
            wavefront = np.deg2rad(steps[w, k]) + tilt[w, k, 0] * y + tilt[w, k, 1] * x
            wavefront = wavefront + defocus[w, k] * (y * y + x * x) / 2.0
            light = background[w] + amplitude[w] * fringe(surface + wavefront, f.harmonic2, f.harmonic3)
            frames[w, k] = detect(rng, light, f)
    return Scene(frames, height, mask, waves, steps, tilt, defocus, piston, wave_tilt, background, amplitude)


def surface_nm(rng: np.random.Generator, shape: tuple[int, int], peak_to_valley_nm: float) -> np.ndarray:
    """A smooth surface: a bowl, a saddle and a slope in random shares with waves on it, of the given peak to valley."""
    y, x = np.meshgrid(*(np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    bowl, saddle, slope_y, slope_x = rng.uniform(0.3, 1.0, 4) * rng.choice([-1.0, 1.0], 4)
    form = bowl * (x * x + y * y) + saddle * x * y + 0.5 * (slope_y * y + slope_x * x)
    for _ in range(3):
        ky, kx = rng.uniform(-1.5, 1.5, 2)
        form += 0.15 * np.sin(np.pi * (ky * y + kx * x) + rng.uniform(0.0, 2.0 * np.pi))
    span = np.ptp(form)
    return (form - form.mean()) * (peak_to_valley_nm / span if span else 0.0)


def field_mask(rng: np.random.Generator, shape: tuple[int, int], f: Faults) -> np.ndarray:
    """True where there is surface: a round field with discs cut out of it."""
    rows, columns = np.indices(shape)
    radius = 0.5 * f.aperture * np.hypot(*shape)
    mask = np.hypot(rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2) <= radius
    for _ in range(f.holes):
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        mask &= np.hypot(rows - row, columns - column) > rng.uniform(0.02, 0.07) * min(shape)
    return mask


def centred_coordinates(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (y, x) that are zero at the centroid of the mask, each axis of the image spanning 2 units."""
    rows, columns = np.indices(mask.shape).astype(float)
    return (
        (rows - rows[mask].mean()) * 2.0 / max(mask.shape[0] - 1, 1),
        (columns - columns[mask].mean()) * 2.0 / max(mask.shape[1] - 1, 1),
    )


def uneven(rng: np.random.Generator, shape: tuple[int, int], departure: float) -> np.ndarray:
    """A smooth field around one whose largest departure from one is ``departure``."""
    if not departure:
        return np.ones(shape)
    blotches = ndimage.zoom(
        rng.normal(0.0, 1.0, (4, 4)), (shape[0] / 4, shape[1] / 4), order=3, grid_mode=True, mode="reflect"
    )
    return 1.0 + departure * blotches / np.abs(blotches).max()


def fringe(phase: np.ndarray, harmonic2: float, harmonic3: float) -> np.ndarray:
    """``cos p + h2 cos 2p + h3 cos 3p``, by the multiple-angle formulas."""
    c = np.cos(phase)
    return c + harmonic2 * (2.0 * c * c - 1.0) + harmonic3 * (4.0 * c * c - 3.0) * c


def detect(rng: np.random.Generator, light: np.ndarray, f: Faults) -> np.ndarray:
    """What the camera makes of light given as a share of full scale: shot noise, read noise, digital levels that clip."""
    signal = light
    if f.full_well is not None:
        signal = rng.poisson(np.maximum(signal, 0.0) * f.full_well) / f.full_well
    if f.read_noise:
        signal = signal + rng.normal(0.0, f.read_noise, light.shape)
    if f.bits is None:
        return signal
    top = 2**f.bits - 1
    return np.minimum(np.maximum(np.floor(signal * top + 0.5), 0), top)


def converter_type(bits: int) -> type:
    """The smallest unsigned type for so many bits."""
    if not 1 <= bits <= 16:
        raise ValueError(f"{bits} bits: a converter has 1 to 16")
    return np.uint8 if bits <= 8 else np.uint16
