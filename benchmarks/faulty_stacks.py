"""Stacks of frames with the faults of real instruments, from the physics alone: nothing of the package makes a frame here.

    I = response(gain_lk (A + B c_lk cos(4 pi h / lambda_l + step_lk + phase_lk(y, x)))) + noise, digitised

A `Bench` is the instrument as it was; what the user says of it, `Told`, may be something else. A fault changes the bench, what
is told, or the frames that were taken, at three sizes: 0 is harmless, 1 plain, 2 gross.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

SHAPE = (256, 320)
PAIRS_NM = ((632.8, 650.0), (632.8, 543.5), (532.0, 632.8), (780.0, 785.0), (633.0, 612.0))
WAVES_NM = {1: (632.8,), 3: (600.0, 620.0, 660.0), 4: (5000.0, 5500.0, 6050.0, 6655.0)}
Array = np.ndarray


@dataclass(frozen=True)
class Told:
    """What the user says: wavelengths, cumulative steps, significant bits (None: the type's)."""

    wavelengths_nm: tuple[float, ...]
    steps_deg: tuple[float, ...]
    bit_depth: int | None = None


@dataclass(frozen=True)
class Bench:
    """The instrument and the part: ``height_nm`` (H, W), ``mask`` True where there is surface, ``steps_deg`` and ``gain`` and
    ``contrast`` (L, K), ``phase_rad`` added per frame (L, K, H, W or broadcast), ``light`` A and ``fringe`` B (H, W) as shares
    of full scale, ``noise`` the standard deviation of a sample as a share, ``bits`` and ``response`` of the camera."""

    height_nm: Array
    mask: Array
    wavelengths_nm: tuple[float, ...]
    steps_deg: Array
    light: Array
    fringe: Array
    noise: float
    bits: int = 8
    gain: Array = field(default_factory=lambda: np.ones((1, 1)))
    contrast: Array = field(default_factory=lambda: np.ones((1, 1)))
    phase_rad: Array = field(default_factory=lambda: np.zeros((1, 1, 1, 1)))
    noise_blur_px: float = 0.0
    response: Callable[[Array], Array] = lambda light: light
    told: Told = Told((), ())

    @property
    def count(self) -> tuple[int, int]:
        return self.steps_deg.shape

    def frames(self, rng: np.random.Generator) -> Array:
        """Take the frames (L, K, H, W), shares of full scale, not digitised."""
        waves = np.asarray(self.wavelengths_nm)[:, None, None, None]
        phase = 4 * np.pi * self.height_nm / waves + np.radians(self.steps_deg)[:, :, None, None] + self.phase_rad
        clean = self.light + self.fringe * self.contrast[:, :, None, None] * np.cos(phase)
        clean = self.response(clean * self.gain[:, :, None, None])
        noise = rng.normal(0, 1, clean.shape)
        if self.noise_blur_px:
            noise = ndimage.gaussian_filter(noise, (0, 0, self.noise_blur_px, self.noise_blur_px))
            noise /= noise.std()
        return clean + self.noise * noise

    def digitised(self, frames: Array) -> Array:
        """Turn shares of full scale into the camera's counts."""
        top = 2**self.bits - 1
        return np.clip(np.rint(frames * top), 0, top).astype(np.uint8 if self.bits <= 8 else np.uint16)


Range = Callable[[tuple[float, ...], float], float]


def clean_bench(seed: int, wavelengths: int, range_nm: Range, sigma_rad: float | None = None) -> Bench:
    """Draw surface, mask, noise and light; ``range_nm`` (wavelengths, phase noise) is what heights may fill by three fifths."""
    rng = np.random.default_rng((seed, wavelengths))
    waves = waves_nm(seed, wavelengths)
    y, x = (np.mgrid[: SHAPE[0], : SHAPE[1]] - (np.array(SHAPE)[:, None, None] - 1) / 2) / (max(SHAPE) / 2)
    mask = np.hypot(y, x) < 0.74 if seed % 2 else np.ones(SHAPE, bool)
    for _ in range(3 * (seed % 3)):
        mask &= np.hypot(y - rng.uniform(-0.7, 0.7), x - rng.uniform(-0.9, 0.9)) > rng.uniform(0.03, 0.08)
    sigma_rad = sigma_rad or (0.01, 0.02, 0.05, 0.1, 0.2)[seed % 5]
    kind = ("smooth", "mesas", "steps", "steep", "smooth")[(seed + wavelengths) % 5] if wavelengths > 1 else "smooth"
    full = 0.6 * min(range_nm(waves, sigma_rad), 40 * waves[0]) if wavelengths > 1 else 4 * waves[0]
    height = _surface(rng, kind, y, x, full)
    frames = (4, 5, 4, 7, 4)[seed % 5]
    steps = tuple(90.0 * k if frames < 7 else 60.0 * k for k in range(frames))
    light = 0.44 * (1 + 0.1 * x - 0.08 * y)
    fringe = 0.34 * (1 - 0.15 * (x * x + y * y)) * mask
    # sigma of the phase is sqrt(2 / K) noise / B
    noise = max(sigma_rad * 0.3 * np.sqrt(frames / 2), 0.004)
    table = np.tile(steps, (wavelengths, 1))
    ones = np.ones((wavelengths, frames))
    light = np.where(mask, light, 0.05)
    return Bench(
        height,
        mask,
        waves,
        table,
        light,
        fringe,
        noise,
        8 if sigma_rad < 0.15 else 10,
        ones,
        ones,
        told=Told(waves, steps),
    )


def waves_nm(seed: int, wavelengths: int) -> tuple[float, ...]:
    return PAIRS_NM[seed % len(PAIRS_NM)] if wavelengths == 2 else WAVES_NM[wavelengths]


def decided_bench(seed: int, wavelengths: int, range_nm: Range) -> Bench:
    """Draw a clean bench whose noise leaves no order open, with 3 to 12 frames of 8 to 16 bit: nothing is to be said of it.

    That noise is 0.1 rad at most. Of close pairs even 0.01 rad leaves orders open: they are taken with the wider ones' seeds.
    """
    waves = waves_nm(seed, wavelengths)
    levels = [0.01, 0.02, 0.05, 0.1]
    if wavelengths > 1:  # one order tells nothing: a range of two and more is decided
        levels = [level for level in levels if range_nm(waves, level) > 0.75 * min(waves)]
    if not levels:
        return decided_bench(seed + 4, wavelengths, range_nm)
    rng = np.random.default_rng((seed, wavelengths, 1))
    sigma_rad = float(rng.choice(levels))
    bench = clean_bench(seed, wavelengths, range_nm, sigma_rad)
    frames = int(rng.integers(3, 13))
    step = 90.0 if frames in (4, 5, 8, 9) else 360.0 / min(frames, 6)
    steps = tuple(step * k for k in range(frames))
    ones = np.ones((wavelengths, frames))
    return replace(
        bench,
        steps_deg=np.tile(steps, (wavelengths, 1)),
        noise=max(sigma_rad * 0.3 * np.sqrt(frames / 2), 0.004),
        bits=int(rng.choice((8, 10, 12, 14, 16))),
        gain=ones,
        contrast=ones,
        told=Told(bench.wavelengths_nm, steps),
    )


def _surface(rng: np.random.Generator, kind: str, y: Array, x: Array, full: float) -> Array:
    a, b, c, d = rng.uniform(0.3, 1, 4) * rng.choice([-1, 1], 4)
    form = a * (x * x + y * y) + b * x * y + 0.5 * (c * x + d * y) + 0.05 * np.sin(5 * x + 3 * y)
    form = form / np.ptp(form)
    if kind == "mesas":
        return full * (0.6 * form + 0.4 * ((np.abs(x) < 0.3) & (np.abs(y) < 0.3)))
    if kind == "steps":
        return full * (0.5 * form + 0.5 * (np.floor(2.5 * (x + 1)) / 5))
    if kind == "steep":
        return full * (0.9 * (x + 0.3 * y) / np.ptp(x + 0.3 * y) + 0.1 * form)
    return full * form


# --- faults ----------------------------------------------------------------------------------------------------------

Fault = Callable[[Bench, int, np.random.Generator], Bench]
Later = Callable[[Bench, Array, int, np.random.Generator], Array]
Stored = Callable[[Array, int], Array]


@dataclass(frozen=True)
class FaultKind:
    """A fault: of the bench before frames are taken, of the frames, or of the counts as stored; for how many wavelengths it
    exists; whether a run may refuse it; why frames do not betray it, if so; and whether the right map can be had from them."""

    bench: Fault | None = None
    later: Later | None = None
    stored: Stored | None = None
    least_waves: int = 1
    most_waves: int = 4
    may_refuse: bool = False
    traceless: str = ""
    traceless_of_two: str = ""  # with two wavelengths
    repairable: bool = True


def _coordinates(bench: Bench) -> tuple[Array, Array]:
    shape = bench.height_nm.shape
    y, x = (np.mgrid[: shape[0], : shape[1]] - (np.array(shape)[:, None, None] - 1) / 2) / (max(shape) / 2)
    return y, x


def _of_wave(bench: Bench, values: Array) -> Array:
    """Put a phase (H, W) on every frame of the second wavelength."""
    added = np.zeros((bench.count[0], 1, *values.shape))
    added[1, 0] = values
    return bench.phase_rad + added


def _of_frames(bench: Bench, values: Array) -> Bench:
    return replace(bench, phase_rad=bench.phase_rad + values)


def _between(form: Callable[[Array, Array], Array], *rad: float) -> Fault:
    """Add a form between wavelengths whose peak is that many radians."""

    def fault(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
        y, x = _coordinates(bench)
        values = form(y, x)
        return replace(bench, phase_rad=_of_wave(bench, rad[size] * values / np.abs(values[bench.mask]).max()))

    return fault


def _steps(change: Callable[[Array, int, np.random.Generator], Array]) -> Fault:
    def fault(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
        return replace(bench, steps_deg=change(bench.steps_deg.copy(), size, rng))

    return fault


def _told(change: Callable[[Told, int], Told]) -> Fault:
    return lambda bench, size, rng: replace(bench, told=change(bench.told, size))


def _scaled_wave(told: Told, size: int) -> Told:
    waves = list(told.wavelengths_nm)
    waves[-1] *= 1 + (0.0002, 0.001, 0.005)[size]
    return replace(told, wavelengths_nm=tuple(waves))


def _all_scaled(told: Told, size: int) -> Told:
    return replace(told, wavelengths_nm=tuple(w * (1.0002, 1.003, 1.03)[size] for w in told.wavelengths_nm))


def _swapped_waves(told: Told, size: int) -> Told:
    waves = list(told.wavelengths_nm)
    if size == 0:
        return told
    waves[0], waves[-1 if size == 2 else 1] = waves[-1 if size == 2 else 1], waves[0]
    return replace(told, wavelengths_nm=tuple(waves))


def _not_tuned(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    waves = list(bench.wavelengths_nm)
    waves[1] += (0.001, 0.5, 1.0)[size] * (waves[0] - waves[1])
    return replace(bench, wavelengths_nm=tuple(waves))


def _one_step(steps: Array, size: int, rng: np.random.Generator) -> Array:
    steps[-1, -1] -= (2.0, 30.0, steps[-1, 1])[size]
    return steps


def _scatter(steps: Array, size: int, rng: np.random.Generator) -> Array:
    steps[:, 1:] += rng.normal(0, (0.5, 4.0, 10.0)[size], steps[:, 1:].shape)
    return steps


def _gain(values: Callable[[int, int, np.random.Generator], Array]) -> Fault:
    def fault(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
        return replace(bench, gain=bench.gain * values(size, bench.count[1], rng))

    return fault


def _one_exposure(size: int, frames: int, rng: np.random.Generator) -> Array:
    gain = np.ones(frames)
    gain[2] = (1.01, 1.15, 1.25)[size]
    return gain


def _dark_exposures(size: int, frames: int, rng: np.random.Generator) -> Array:
    gain = np.full(frames, 1.0)
    gain[1] = (0.99, 0.8, 0.4)[size]
    return gain


def _fading(size: int, frames: int, rng: np.random.Generator) -> Array:
    return 1 - np.linspace(0, (0.002, 0.05, 0.2)[size], frames)


def _tilts(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    y, x = _coordinates(bench)
    reach = (0.01, 0.3, 1.2)[size]
    slopes = rng.normal(0, reach, (*bench.count, 2))
    slopes[:, 0] = 0
    return _of_frames(bench, slopes[..., 0, None, None] * y + slopes[..., 1, None, None] * x)


def _defocus_of_frames(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    y, x = _coordinates(bench)
    bow = rng.normal(0, (0.005, 0.1, 0.4)[size], bench.count)
    return _of_frames(bench, bow[..., None, None] * (y * y + x * x))


def _line_noise(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    rows = rng.normal(0, (0.01, 0.2, 0.7)[size], (*bench.count, bench.height_nm.shape[0], 1))
    return _of_frames(bench, rows)


def _gamma(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    power = (0.98, 0.85, 0.7)[size]
    return replace(bench, response=lambda light: np.maximum(light, 0) ** power)


def _soft_ceiling(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    bend = (0.01, 0.1, 0.3)[size]
    return replace(bench, response=lambda light: light * (1 - bend * light))


def _ghost(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    y, x = _coordinates(bench)
    share = (0.002, 0.03, 0.1)[size]
    return replace(bench, light=bench.light + share * bench.fringe * np.cos(40 * x + 17 * y))


def _contrast_of_wave(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    contrast = bench.contrast * np.ones(bench.count)
    contrast[-1] *= (0.9, 0.5, 0.2)[size]
    return replace(bench, contrast=contrast)


def _contrast_of_frame(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    contrast = bench.contrast * np.ones(bench.count)
    contrast[:, 1] *= (0.99, 0.85, 0.5)[size]
    return replace(bench, contrast=contrast)


def _low_contrast(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    return replace(bench, fringe=bench.fringe * (0.9, 0.4, 0.1)[size])


def _uneven(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    _, x = _coordinates(bench)
    shade = 1 - (0.05, 0.5, 0.9)[size] * np.clip((x + 1) / 2, 0, 1)
    return replace(bench, light=bench.light * shade, fringe=bench.fringe * shade)


def _few_bits(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    return replace(bench, bits=(8, 6, 4)[size])


def _blurred_noise(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    return replace(bench, noise_blur_px=(0.3, 1.0, 3.0)[size])


def _dense(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    _, x = _coordinates(bench)
    cycles = (0.1, 0.3, 0.46)[size]
    per_pixel = cycles * bench.wavelengths_nm[0] / 2
    return replace(bench, height_nm=bench.height_nm + per_pixel * x * max(bench.height_nm.shape) / 2)


# of the frames that were taken


def _burnt_text(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    reach = (6, 16, 40)[size]
    for k, frame in enumerate(frames.reshape(-1, *frames.shape[2:])):
        glyphs = np.random.default_rng(k).random((reach // 2, reach)) < 0.5
        frame[8 : 8 + 2 * glyphs.shape[0], 8 : 8 + 2 * glyphs.shape[1]] = np.kron(glyphs, np.ones((2, 2)))
    return frames


def _dark_frame(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    if size:
        frames[-1, -1] = 0.05 + bench.noise * rng.normal(0, 1, frames.shape[2:])
    if size == 2:
        frames[-1, 0] = 0.05 + bench.noise * rng.normal(0, 1, frames.shape[2:])
    return frames


def _twice(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    if size:
        frames[-1, -1] = frames[-1, -2] + bench.noise * rng.normal(0, 1, frames.shape[2:]) * (size == 1)
    return frames


def _pair_exchanged(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    if size:
        i, j = ((1, 2), (0, 1))[size - 1]
        frames[-1, [i, j]] = frames[-1, [j, i]]
    return frames


def _one_reversed(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    if size:
        frames[-size] = frames[-size, ::-1].copy()
    return frames


def _all_reversed(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    return frames[:, ::-1].copy() if size else frames


def _step_major(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    return np.ascontiguousarray(frames.swapaxes(0, 1)).reshape(frames.shape) if size else frames


def _shifted_wave(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    frames[-1] = ndimage.shift(frames[-1], (0, 0, (0.02, 0.5, 2.0)[size]), order=1, mode="nearest")
    return frames


def _shifted_frames(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    for wave in frames:
        for k in range(1, len(wave)):
            move = rng.normal(0, (0.01, 0.3, 1.5)[size], 2)
            wave[k] = ndimage.shift(wave[k], move, order=1, mode="nearest")
    return frames


def _ceiling(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    return np.minimum(frames, (0.95, 0.72, 0.6)[size])


def _black(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    """Take too much black off: troughs, a tenth of full scale high, are cut off at zero."""
    return np.maximum(frames - (0.03, 0.13, 0.2)[size], 0)


def _stuck(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    bad = rng.random(frames.shape[2:]) < (0.0005, 0.01, 0.05)[size]
    frames[..., bad] = rng.random(bad.sum())
    return frames


def _lost_rows(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    first = frames.shape[2] // 3
    frames[0, 1, first : first + (1, 8, 40)[size]] = 0
    return frames


def _dust(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    y, x = _coordinates(bench)
    for _ in range((2, 12, 60)[size]):
        spot = np.hypot(y - rng.uniform(-0.8, 0.8), x - rng.uniform(-1, 1)) < rng.uniform(0.01, 0.03)
        frames[..., spot] *= 0.1
    return frames


def _impulses(bench: Bench, frames: Array, size: int, rng: np.random.Generator) -> Array:
    """Strike single samples, as cosmic rays do: other ones in every frame."""
    hit = rng.random(frames.shape) < (0.0001, 0.001, 0.01)[size]
    return np.where(hit, rng.random(frames.shape), frames)


def _camera_bits(bench: Bench, size: int, rng: np.random.Generator) -> Bench:
    return replace(bench, bits=(14, 12, 10)[size])


def _left_justified(counts: Array, size: int) -> Array:
    return counts << np.uint16((2, 4, 6)[size])


def _shifted_ceiling(counts: Array, size: int) -> Array:
    return (counts.astype(np.uint16) << np.uint16(2)) + np.uint16((0, 60, 200)[size])


FAULTS: dict[str, FaultKind] = {
    "wavelength": FaultKind(_told(_scaled_wave), least_waves=2),
    "common scale": FaultKind(
        _told(_all_scaled),
        traceless="every phase is that of a surface as much higher: nothing in the frames has a length",
    ),
    "wavelengths exchanged": FaultKind(_told(_swapped_waves), least_waves=2),
    "laser did not tune": FaultKind(_not_tuned, least_waves=2, may_refuse=True, repairable=False),
    "chromatic defocus": FaultKind(_between(lambda y, x: y * y + x * x, 0.01, 0.2, 1.35), least_waves=2),
    "chromatic astigmatism": FaultKind(_between(lambda y, x: x * x - y * y, 0.01, 0.2, 1.0), least_waves=2),
    "chromatic coma": FaultKind(_between(lambda y, x: (3 * (x * x + y * y) - 2) * x, 0.01, 0.2, 0.6), least_waves=2),
    "tilt between wavelengths": FaultKind(_between(lambda y, x: x + 0.5 * y, 0.05, 1.0, 6.0), least_waves=2),
    "piston between wavelengths": FaultKind(_between(lambda y, x: np.ones_like(x), 0.05, 1.0, 3.0), least_waves=2),
    "image moved between wavelengths": FaultKind(later=_shifted_wave, least_waves=2),
    "contrast of one wavelength": FaultKind(_contrast_of_wave, least_waves=2),
    "step major": FaultKind(later=_step_major, least_waves=2),
    "one wavelength reversed": FaultKind(
        later=_one_reversed,
        least_waves=2,
        traceless_of_two="which of the two it is leaves no trace: the other one reversed is the mirrored surface",
    ),
    "all frames reversed": FaultKind(
        later=_all_reversed, traceless="the frames are those of the mirrored surface, whose steps run the other way"
    ),
    "step size": FaultKind(_steps(lambda s, size, rng: s * (0.999, 0.94, 0.78)[size])),
    "steps scattered": FaultKind(_steps(_scatter)),
    "one step": FaultKind(_steps(_one_step)),
    "frame taken twice": FaultKind(later=_twice),
    "two frames exchanged": FaultKind(later=_pair_exchanged),
    "dark frame": FaultKind(later=_dark_frame, may_refuse=True, repairable=False),
    "text in the frames": FaultKind(later=_burnt_text, may_refuse=True, repairable=False),
    "one exposure longer": FaultKind(_gain(_one_exposure)),
    "one exposure shorter": FaultKind(_gain(_dark_exposures)),
    "lamp fades": FaultKind(_gain(_fading)),
    "contrast of one frame": FaultKind(_contrast_of_frame),
    "tilt drifts": FaultKind(_tilts),
    "focus drifts": FaultKind(_defocus_of_frames),
    "image drifts": FaultKind(later=_shifted_frames, repairable=False),
    "line noise": FaultKind(_line_noise, repairable=False),
    "gamma": FaultKind(_gamma),
    "camera bends": FaultKind(_soft_ceiling),
    "ceiling": FaultKind(later=_ceiling),
    "clipped at black": FaultKind(later=_black),
    "left-justified": FaultKind(_camera_bits, stored=_left_justified),
    "black level raised": FaultKind(stored=_shifted_ceiling),
    "few bits": FaultKind(_few_bits),
    "low contrast": FaultKind(_low_contrast),
    "uneven light": FaultKind(_uneven),
    "ghost fringes": FaultKind(_ghost, repairable=False),
    "blurred noise": FaultKind(_blurred_noise),
    "stuck pixels": FaultKind(later=_stuck),
    "lost rows": FaultKind(later=_lost_rows),
    "struck samples": FaultKind(later=_impulses),
    "dust": FaultKind(later=_dust),
    "dense fringes": FaultKind(_dense, most_waves=1, repairable=False),
}


@dataclass(frozen=True)
class FaultyStack:
    """Frames as stored (L, K, H, W), what is told of them, the truth and where there is surface."""

    frames: Array
    told: Told
    height_nm: Array
    mask: Array


def take(bench: Bench, name: str | None, size: int, seed: int) -> FaultyStack:
    """Take the frames of a bench with one fault (None: without); the same noise with and without."""
    kind = FaultKind() if name is None else FAULTS[name]
    rng = np.random.default_rng((seed, size, 77))
    if kind.bench is not None:
        bench = kind.bench(bench, size, rng)
    frames = bench.frames(np.random.default_rng((seed, 5)))
    if kind.later is not None:
        frames = kind.later(bench, frames, size, rng)
    counts = bench.digitised(frames)
    return FaultyStack(
        counts if kind.stored is None else kind.stored(counts, size), bench.told, bench.height_nm, bench.mask
    )
