"""Stacks on disk whose every number is known: I = A + B cos(4 pi h / lambda + step + tilt . (r - pivot))."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from cpikan.images.patches.light import WaveLight
from cpikan.images.patches.source import StackFiles, TruthFile
from cpikan.psi.model.frame_model import FrameModel

A_DN, B_DN = 120.0, 50.0
SHAPE = (72, 90)
WAVES_NM = (632.8, 532.0)
STEPS = 5


def surface_nm(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A smooth surface of a few fringes that looks different after any flip."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    return 9.0 * x + 4.0 * y + 150.0 * np.sin(x / 11 + y / 17) + 0.04 * (x - 20) ** 2


def known_light(seed: int, waves: int = 2, *, tilted: bool = True) -> tuple[WaveLight, ...]:
    """Steps, tilts and pistons drawn from ``seed``; frame 0 is the reference."""
    draw = np.random.default_rng(seed)
    found = []
    for number in range(waves):
        steps = 2 * math.pi * np.arange(STEPS) / STEPS + 0.1 * draw.standard_normal(STEPS)
        tilt = 0.01 * draw.standard_normal((STEPS, 2)) * tilted
        steps[0], tilt[0] = 0, 0
        zeros = np.zeros(STEPS)
        model = FrameModel(steps, tilt, zeros, np.ones(STEPS), zeros, (30.0, 41.0))
        relative = (0.3 * number, (0.002 * number, -0.001 * number)) if tilted else (0.0, (0.0, 0.0))
        found.append(WaveLight(model, *relative, ((SHAPE[0] - 1) / 2, (SHAPE[1] - 1) / 2)))
    return tuple(found)


def frames_of(
    height_nm: np.ndarray, light: tuple[WaveLight, ...], waves_nm: tuple[float, ...] = WAVES_NM
) -> np.ndarray:
    """Frames (L, K, H, W) float32, written out from the formula."""
    y, x = np.mgrid[: height_nm.shape[0], : height_nm.shape[1]].astype(np.float64)
    frames = []
    for one, wave in zip(light, waves_nm, strict=False):
        m = one.model
        ty, tx = (m.tilt_rad_px[:, axis, None, None] for axis in (0, 1))
        steps = m.steps_rad[:, None, None] + ty * (y - m.pivot[0]) + tx * (x - m.pivot[1])
        standing = (
            one.piston_rad + one.tilt_rad_px[0] * (y - one.centre_px[0]) + one.tilt_rad_px[1] * (x - one.centre_px[1])
        )
        frames.append(A_DN + B_DN * np.cos(4 * math.pi / wave * height_nm + steps + standing))
    return np.stack(frames).astype(np.float32)


def stack_files(
    place: Path, light: tuple[WaveLight, ...], *, name: str = "known", invalid: np.ndarray | None = None
) -> StackFiles:
    """The stack of `surface_nm` with its guide (the truth itself), sigma 2 nm, and truth, in ``place``."""
    height = surface_nm()
    flags = np.zeros(SHAPE, np.uint8) if invalid is None else invalid.astype(np.uint8)
    files = {"frames": frames_of(height, light), "guide": np.where(flags, np.nan, height).astype(np.float32)}
    files |= {"sigma": np.full(SHAPE, 2.0, np.float32), "flags": flags, "truth": height.astype(np.float32)}
    place.mkdir(parents=True, exist_ok=True)
    for kind, values in files.items():
        np.save(place / f"{kind}.npy", values)
    return StackFiles(
        name=name,
        guide=place / "guide.npy",
        sigma=place / "sigma.npy",
        flags=place / "flags.npy",
        wavelengths_nm=WAVES_NM[: len(light)],
        frames=str(place / "frames.npy"),
        light=light,
        truth=TruthFile(place / "truth.npy", 1, np.zeros(1)),
    )
