"""The hard set: wrapped phases with their truth, each of one difficulty that unwrapping meets in practice.

Every case is a function of its size and seed alone. The truth of an order is the one that brings the wrapped phase
nearest to the surface without noise.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

TURN = 2 * np.pi
REAL_MAPS = ("CoppFoil_4PS.bmp", "ESPI4.tif", "PHASE.TIF")


@dataclass(frozen=True)
class Case:
    """``phase_rad`` (h, w) float32, wrapped, NaN = no pixel; ``surface_rad`` float64 without noise, None when it is not
    known; ``coherence`` (h, w) in 0..1, how far each pixel can be trusted, for the methods that take it."""

    phase_rad: np.ndarray
    surface_rad: np.ndarray | None
    coherence: np.ndarray

    def true_orders(self) -> np.ndarray:
        assert self.surface_rad is not None
        return np.nan_to_num(np.rint((self.surface_rad - self.phase_rad) / TURN)).astype(np.int64)

    def sigma_rad(self) -> np.ndarray:
        """Standard deviation of the phase that the coherence stands for (one look, small noise)."""
        return np.sqrt((1 / np.clip(self.coherence, 0.05, 0.999) ** 2 - 1) / 2)


def wrap(phase: np.ndarray) -> np.ndarray:
    return phase - TURN * np.rint(phase / TURN)


def _case(surface: np.ndarray, noise_rad: float | np.ndarray, seed: int, valid: np.ndarray | None = None) -> Case:
    """Gaussian phase noise, and the coherence of one look that has it."""
    random = np.random.default_rng([seed, 77])
    noise = np.broadcast_to(np.asarray(noise_rad, float), surface.shape)
    wrapped = wrap(surface + noise * random.normal(size=surface.shape)).astype(np.float32)
    if valid is not None:
        wrapped[~valid] = np.nan
    return Case(wrapped, surface, (1 / np.sqrt(1 + 2 * noise**2)).astype(np.float32))


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return y, x


def _texture(size: int, correlation: float, seed: int) -> np.ndarray:
    """A random surface of unit variance, correlated over ``correlation`` pixels."""
    texture = ndimage.gaussian_filter(np.random.default_rng([seed, 5]).normal(size=(size, size)), correlation)
    return texture / texture.std()


def wafer_surface(size: int, seed: int) -> np.ndarray:
    """Bow, saddle and waviness; slopes to about 0.07 cycle/px at 512 pixels."""
    y, x = _axes(size)
    scale = size / 512
    return scale * (60 * (x * x + 0.7 * y * y * x + 0.3 * np.sin(3 * x + seed) * np.cos(4 * y))) + 6 * _texture(
        size, size / 20, seed
    )


def noise(size: int, seed: int, sigma_rad: float) -> Case:
    return _case(wafer_surface(size, seed), sigma_rad, seed)


def pixel_holes(size: int, seed: int, share: float, sigma_rad: float = 0.3) -> Case:
    valid = np.random.default_rng(seed).random((size, size)) >= share
    return _case(wafer_surface(size, seed), sigma_rad, seed, valid)


def blob_holes(size: int, seed: int, share: float, sigma_rad: float = 0.3) -> Case:
    texture = _texture(size, size / 60, seed + 1)
    return _case(wafer_surface(size, seed), sigma_rad, seed, texture < np.quantile(texture, 1 - share))


def scratch_holes(size: int, seed: int, share: float, sigma_rad: float = 0.3) -> Case:
    """Straight scratches, 1 to 5 pixels wide, until the share of the map is gone."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    valid = np.ones((size, size), bool)
    while valid.mean() > 1 - share:
        angle, (cy, cx) = random.uniform(0, np.pi), random.uniform(0, size, 2)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        valid &= (np.abs(along) > random.uniform(0.1, 0.4) * size) | (np.abs(across) > random.uniform(0.5, 2.5))
    return _case(wafer_surface(size, seed), sigma_rad, seed, valid)


def islands(size: int, seed: int, sigma_rad: float = 0.4) -> Case:
    """Separate pieces of very different size."""
    texture = _texture(size, size / 25, seed)
    return _case(wafer_surface(size, seed), sigma_rad, seed, texture > 0.2)


def moats(size: int, seed: int, sigma_rad: float = 0.4) -> Case:
    """Discs cut off from the rest by closed rings, and a ring within a ring."""
    valid = np.ones((size, size), bool)
    y, x = np.mgrid[:size, :size]
    for cy, cx, radius in ((0.3, 0.3, 0.17), (0.3, 0.3, 0.08), (0.7, 0.65, 0.2), (0.2, 0.8, 0.05), (0.85, 0.15, 0.1)):
        distance = np.hypot(y - cy * size, x - cx * size)
        valid &= np.abs(distance - radius * size) > 1.5
    return _case(wafer_surface(size, seed), sigma_rad, seed, valid)


def dense(size: int, seed: int, cycles: float, sigma_rad: float) -> Case:
    """Circular fringes that reach ``cycles`` per pixel at the edge centres, and fine waviness; beyond them masked."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(y, x)
    surface = TURN * cycles * radius**2 / size + 0.5 * _texture(size, size / 40, seed)
    return _case(surface, sigma_rad, seed, radius < size / 2)


def carrier(size: int, seed: int, cycles: float, sigma_rad: float) -> Case:
    """A tilted plane of ``cycles`` per pixel along x under a waviness of a few rad."""
    y, x = np.mgrid[:size, :size]
    return _case(TURN * (cycles * x + 0.03 * y) + 3 * _texture(size, size / 16, seed), sigma_rad, seed)


def shear(size: int, seed: int, sigma_rad: float = 0.2) -> Case:
    """Two sides displaced along a fault in the middle: its step grows from nothing to three turns and vanishes."""
    y, x = _axes(size)
    step = 3 * TURN * np.clip(1 - np.abs(x) / 0.3, 0, None)
    surface = wafer_surface(size, seed) * 0.6 + np.where(y > 0.03 * np.sin(6 * x), step * np.exp(-2 * y), 0)
    return _case(surface, sigma_rad, seed)


def ramp_shear(size: int, seed: int, sigma_rad: float = 0.1) -> Case:
    """Two planes of opposite slope side by side: they meet in the middle of the map and are 2.4 turns apart at its
    ends."""
    y, x = _axes(size)
    surface = 1.2 * TURN * np.where(x > 0, y, -y) + 10 * x
    return _case(surface, sigma_rad, seed)


def steps(size: int, seed: int, step_rad: float, sigma_rad: float = 0.2) -> Case:
    """A field of chips whose edges step by less than a quarter of a wavelength (pi)."""
    y, x = np.mgrid[:size, :size]
    chips = (x // 57 + y // 43) % 2
    return _case(0.02 * x + 0.03 * y + 4 * _texture(size, size / 8, seed) + step_rad * chips, sigma_rad, seed)


def speckle(size: int, seed: int, low: float, high: float, looks: int = 1) -> Case:
    """Two correlated speckle fields interfere; their coherence varies between ``low`` and ``high`` over the map."""
    random = np.random.default_rng([seed, 9])
    surface = wafer_surface(size, seed)
    spread = np.clip(0.5 + 0.4 * _texture(size, size / 14, seed + 2), 0, 1)
    coherence = low + (high - low) * spread
    total = np.zeros((size, size), complex)
    for _ in range(looks):
        one, other = random.normal(size=(2, size, size)) + 1j * random.normal(size=(2, size, size))
        total += one.conj() * (coherence * one + np.sqrt(1 - coherence**2) * other)
    wrapped = np.angle(total * np.exp(1j * surface)).astype(np.float32)
    return Case(wrapped, surface, coherence.astype(np.float32))


def diamond_square(exponent: int, smoothness: float, seed: int) -> np.ndarray:
    """Fractal terrain of 2**exponent + 1 pixels squared; each level's noise is 2**-smoothness of the one before."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(2, 2))
    for level in range(exponent):
        n = z.shape[0]
        finer = np.zeros((2 * n - 1, 2 * n - 1))
        amplitude = 2.0 ** (-smoothness * level)
        finer[::2, ::2] = z
        finer[1::2, 1::2] = (z[1:, 1:] + z[:-1, 1:] + z[1:, :-1] + z[:-1, :-1]) / 4 + amplitude * random.normal(
            size=(n - 1, n - 1)
        )
        padded = np.pad(finer, 1, mode="reflect")
        mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        odd = np.add.outer(np.arange(finer.shape[0]), np.arange(finer.shape[0])) % 2 == 1
        finer[odd] = mean[odd] + amplitude * random.normal(size=finer.shape)[odd]
        z = finer
    return z


def terrain(size: int, seed: int, steepest_rad: float, sigma_rad: float, smoothness: float = 0.9) -> Case:
    """Diamond-square terrain whose 99.9 % steepest step between neighbours is ``steepest_rad``."""
    z = diamond_square(int(np.ceil(np.log2(size - 1))), smoothness, seed)[:size, :size]
    step = np.quantile(np.abs(np.diff(z, axis=1)), 0.999)
    return _case(z * steepest_rad / step, sigma_rad, seed)


def real_map(_size: int, _seed: int, name: str) -> Case:
    """A measured wrapped phase of 8 bit, phase = 2 pi DN / 256 - pi; its truth is not known."""
    from skimage import io

    root = Path(os.environ.get("CPIKAN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    phase = (TURN * io.imread(root / "fringeproc" / name).astype(np.float64) / 256 - np.pi).astype(np.float32)
    return Case(phase, None, np.full(phase.shape, 0.85, np.float32))


Maker = Callable[[int, int], Case]

CASES: dict[str, Maker] = (
    {f"noise {s}": partial(noise, sigma_rad=s) for s in (0.1, 0.2, 0.3, 0.4, 0.5, 0.8)}
    | {f"pixel holes {h}%": partial(pixel_holes, share=h / 100) for h in (5, 15, 30)}
    | {f"blob holes {h}%": partial(blob_holes, share=h / 100) for h in (5, 15, 30)}
    | {f"scratches {h}%": partial(scratch_holes, share=h / 100) for h in (5, 15, 30)}
    | {"pixel holes 30% noise 0.5": partial(pixel_holes, share=0.3, sigma_rad=0.5)}
    | {"scratches 30% noise 0.5": partial(scratch_holes, share=0.3, sigma_rad=0.5)}
    | {"islands": islands, "moats": moats}
    | {f"dense {c} noise {s}": partial(dense, cycles=c, sigma_rad=s) for c in (0.1, 0.2, 0.3, 0.4) for s in (0.1, 0.3)}
    | {f"dense {c} noise 0.5": partial(dense, cycles=c, sigma_rad=0.5) for c in (0.1, 0.2)}
    | {f"carrier {c} noise 0.3": partial(carrier, cycles=c, sigma_rad=0.3) for c in (0.2, 0.3, 0.4)}
    | {"shear": shear, "ramp shear": ramp_shear}
    | {f"steps {s} rad": partial(steps, step_rad=s) for s in (1.0, 2.0, 2.6)}
    | {"steps 2.0 rad noise 0.4": partial(steps, step_rad=2.0, sigma_rad=0.4)}
    | {"speckle 0.5-0.95": partial(speckle, low=0.5, high=0.95), "speckle 0.2-0.9": partial(speckle, low=0.2, high=0.9)}
    | {"speckle 4 looks": partial(speckle, low=0.1, high=0.8, looks=4)}
    | {f"terrain {s} rad": partial(terrain, steepest_rad=s, sigma_rad=0.1) for s in (1.5, 3.0)}
    | {"terrain 1.5 rad noise 0.4": partial(terrain, steepest_rad=1.5, sigma_rad=0.4)}
    | {name: partial(real_map, name=name) for name in REAL_MAPS}
)

LARGE = (
    "noise 0.5",
    "blob holes 15%",
    "dense 0.3 noise 0.3",
    "shear",
    "ramp shear",
    "speckle 0.5-0.95",
    "terrain 1.5 rad noise 0.4",
)
"""Cases that are also measured at 1024 x 1024."""


def make(name: str, size: int, seed: int = 1) -> Case:
    return CASES[name](size, seed)
