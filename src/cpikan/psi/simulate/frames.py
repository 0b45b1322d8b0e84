"""Frames from heights: I = A + B cos(phi + delta + t.r) through a detector, row by row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.simulate.random import DEAD, GAUSSIAN, cos_turns, f32, i32, normal_rows, row_key, u32, u64, uniform_bits
from cpikan.psi.simulate.settings import FrameFaults, SimulationSettings
from cpikan.psi.simulate.wafer import Grid

_OUTSIDE_LIGHT = 0.15  # of the background: the chuck beside the wafer
_PARTICLE_LIGHT = 0.5  # a particle scatters: less light, no fringes


class Optics(NamedTuple):
    """Numbers of the detector model; DN are float32, ``dead_below`` is a threshold on 32 random bits."""

    seed: int
    background_dn: float
    modulation_dn: float
    vignetting_background: float
    vignetting_modulation: float
    second_harmonic: np.float32
    third_harmonic: np.float32
    read_variance: np.float32
    shot_variance_per_dn: np.float32
    full_scale: np.float32
    dead_below: int
    outside_light: float
    particle_light: float


class Light(NamedTuple):
    """Phases of the frames in turns: ``turns_per_nm`` (L,), ``step``, ``tilt_x``, ``tilt_y`` (L, K); ``gain`` (L, K).

    Tilts are per unit of radius; ``unit_x`` (W,) and ``unit_y`` (H,) are pixel positions in units of the edge's radius,
    ``corner`` is their sum of squares in the corner of the frame.
    """

    turns_per_nm: np.ndarray
    step: np.ndarray
    tilt_x: np.ndarray
    tilt_y: np.ndarray
    gain: np.ndarray
    unit_x: np.ndarray
    unit_y: np.ndarray
    corner: float


def make_optics(settings: SimulationSettings) -> Optics:
    """Convert the detector of ``settings`` to numbers for the kernel."""
    instrument, depth = settings.instrument, settings.bit_depth
    full = float(2**depth - 1)
    return Optics(
        seed=settings.seed,
        background_dn=instrument.background * instrument.exposure * full,
        modulation_dn=instrument.modulation * instrument.exposure * full,
        vignetting_background=float(instrument.vignetting_background),
        vignetting_modulation=float(instrument.vignetting_modulation),
        second_harmonic=np.float32(instrument.second_harmonic),
        third_harmonic=np.float32(instrument.third_harmonic),
        read_variance=np.float32(instrument.read_noise(depth) ** 2),
        shot_variance_per_dn=np.float32(instrument.shot_variance_per_dn(depth)),
        full_scale=np.float32(full),
        dead_below=round(instrument.dead_fraction * 2**32),
        outside_light=_OUTSIDE_LIGHT,
        particle_light=_PARTICLE_LIGHT,
    )


def make_light(settings: SimulationSettings, faults: FrameFaults, grid: Grid) -> Light:
    """Set up the phases of all frames of ``settings`` with faults; phi = 4 pi h / lambda is 2 h / lambda turns."""
    turn = 2 * np.pi
    tilt = (faults.tilt_rad + faults.offset_tilt_rad[:, None]) / turn
    unit_x, unit_y = grid.x_mm / grid.radius_mm, grid.y_mm / grid.radius_mm
    return Light(
        turns_per_nm=2.0 / np.asarray(settings.wavelengths_nm, np.float64),
        step=(faults.step_rad + faults.offset_rad[:, None]) / turn,
        tilt_x=np.ascontiguousarray(tilt[..., 0]),
        tilt_y=np.ascontiguousarray(tilt[..., 1]),
        gain=np.ascontiguousarray(faults.gain),
        unit_x=unit_x,
        unit_y=unit_y,
        corner=float(unit_x[-1] ** 2 + unit_y[-1] ** 2),
    )


@compiled(error_model="numpy")
def _fill_light(y: float, kind: np.ndarray, light: Light, optics: Optics, a: np.ndarray, b: np.ndarray) -> None:
    for x in range(a.shape[0]):
        square = (light.unit_x[x] * light.unit_x[x] + y * y) / light.corner
        seen = 1.0
        if kind[x] == 1:
            seen = optics.outside_light
        elif kind[x] == 2:
            seen = optics.particle_light
        a[x] = f32(optics.background_dn * (1.0 - optics.vignetting_background * square) * seen)
        good = optics.modulation_dn if kind[x] == 0 else 0.0
        b[x] = f32(good * (1.0 - optics.vignetting_modulation * square))


@compiled(error_model="numpy")
def _fill_phase(height: np.ndarray, turns_per_nm: float, phase: np.ndarray) -> None:
    for x in range(phase.shape[0]):
        nm = np.float64(height[x]) if height[x] == height[x] else np.float64(0.0)
        turns = nm * turns_per_nm  # float64: thousands of turns keep their fraction
        phase[x] = f32(turns - np.floor(turns))


@compiled(error_model="numpy")
def _expose(
    phase: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    along: np.ndarray,
    noise: np.ndarray,
    tilt_x: np.float32,
    step: np.float32,
    gain: np.float32,
    optics: Optics,
    out: np.ndarray,
) -> None:
    two, three, four, half, zero = f32(2.0), f32(3.0), f32(4.0), f32(0.5), f32(0.0)
    for x in range(out.shape[0]):
        c = cos_turns(phase[x] + (step + tilt_x * along[x]))
        # cos 2a = 2 c^2 - 1 and cos 3a = 4 c^3 - 3 c: harmonics of the same argument
        second, third = two * c * c - f32(1.0), c * (four * c * c - three)
        wave = c + (optics.second_harmonic * second + optics.third_harmonic * third)
        signal = gain * (a[x] + b[x] * wave)
        light = signal if signal > zero else zero
        value = signal + np.sqrt(optics.read_variance + optics.shot_variance_per_dn * light) * noise[x]
        value = value if value > zero else zero
        value = value if value < optics.full_scale else optics.full_scale
        out[x] = i32(value + half)


@compiled
def _stick_dead(row: int, optics: Optics, frames: np.ndarray) -> None:
    key = row_key(optics.seed, DEAD, row, 0)
    first, second = u32(key & u64(0xFFFFFFFF)), u32(key >> u64(32))
    for x in range(frames.shape[1]):
        bits = np.int64(uniform_bits(x, first, second))
        if bits < optics.dead_below:
            frames[:, x] = i32(optics.full_scale) if bits & 1 else 0


@compiled(error_model="numpy")
def expose_rows(
    height: np.ndarray,
    kind: np.ndarray,
    start: int,
    rows: tuple[int, int],
    light: Light,
    optics: Optics,
    out: np.ndarray,
) -> None:
    """Fill rows [first, last) = ``rows`` of ``out`` (L * K, n, W) from ``height`` and ``kind`` (n, W).

    The arrays begin at image row ``start``; disjoint ranges may be filled by different threads.
    """
    width = height.shape[1]
    wavelengths, count = light.step.shape
    a, b, phase = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    first_noise, second_noise = np.zeros(width, np.float32), np.zeros(width, np.float32)
    along = light.unit_x.astype(np.float32)
    noisy = optics.read_variance > 0 or optics.shot_variance_per_dn > 0
    for r in range(rows[0], rows[1]):
        row = start + r
        y = light.unit_y[row]
        _fill_light(y, kind[r], light, optics, a, b)
        for wave in range(wavelengths):
            _fill_phase(height[r], light.turns_per_nm[wave], phase)
            for k in range(count):
                frame = wave * count + k
                if noisy and k % 2 == 0:  # one call makes the noise of two frames
                    normal_rows(row_key(optics.seed, GAUSSIAN, row, frame), first_noise, second_noise)
                step = light.step[wave, k] + light.tilt_y[wave, k] * y
                _expose(
                    phase,
                    a,
                    b,
                    along,
                    first_noise if k % 2 == 0 else second_noise,
                    f32(light.tilt_x[wave, k]),
                    f32(step - np.floor(step)),
                    f32(light.gain[wave, k]),
                    optics,
                    out[frame, r],
                )
        if optics.dead_below > 0:
            _stick_dead(row, optics, out[:, r])
