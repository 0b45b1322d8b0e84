"""Patches with a known truth, frames and overlaps, for tests of losses and what feeds them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from cpikan.images.features import FramePatches, PatchBatch, Planes, Prediction

WAVES_NM = (632.8, 650.0)


@contextmanager
def steady() -> Iterator[None]:
    """The same random numbers each time, on one thread: patches this small only wait for others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Setting:
    patches: int = 2
    size: int = 24
    waves: tuple[float, ...] = WAVES_NM
    frames: int = 4
    noise_dn: float = 2.0
    mean_dn: float = 120.0
    contrast_dn: float = 60.0
    tilt_rad_px: float = 0.004
    dtype: torch.dtype = torch.float32


def surface_nm(patches: int, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth hills of a few hundred nm (N, size, size)."""
    y, x = torch.meshgrid(*[torch.linspace(0, 1, size, dtype=dtype)] * 2, indexing="ij")
    lift = torch.arange(patches, dtype=dtype)[:, None, None]
    return 300 * torch.sin(3 * x + lift) + 200 * torch.cos(4 * y) + 1000 * lift


def arguments_rad(frames: FramePatches, height_nm: Tensor) -> Tensor:
    """4 pi h / lambda + step + tilt . (r - pivot), written out in float64 (N, L, K, h, w)."""
    size = height_nm.shape[-2:]
    y, x = torch.meshgrid(*[torch.arange(count).double() for count in size], indexing="ij")
    away = torch.stack([y, x]) - frames.pivot_px.double()[:, :, None, None]
    tilts = torch.einsum("nlkc,nchw->nlkhw", frames.tilt_rad_px.double(), away)
    phase = 4 * math.pi * height_nm.double()[:, None] / frames.wavelengths_nm.double()[:, :, None, None]
    return phase[:, :, None] + frames.step_rad.double()[..., None, None] + tilts


def framed(height_nm: Tensor, setting: Setting, seed: int = 0) -> FramePatches:
    """Frames of heights, with noise, even steps, tilts and uneven light."""
    generator = torch.Generator().manual_seed(seed)
    count, size = len(height_nm), height_nm.shape[-1]
    shape = (count, len(setting.waves), setting.frames)
    step = (2 * math.pi / setting.frames) * torch.arange(setting.frames, dtype=torch.float64).expand(shape)
    tilt = setting.tilt_rad_px * torch.randn((*shape, 2), generator=generator, dtype=torch.float64)
    pivot = torch.full((count, 2), (size - 1) / 2, dtype=torch.float64)
    waves = torch.tensor(setting.waves, dtype=torch.float64).expand(count, -1)
    blank = FramePatches(torch.zeros((*shape, size, size)), step, tilt, pivot, waves)
    light = setting.mean_dn + setting.contrast_dn * arguments_rad(blank, height_nm).cos()
    light = light + setting.noise_dn * torch.randn(light.shape, generator=generator, dtype=torch.float64)
    return FramePatches(light.to(setting.dtype), step, tilt, pivot, waves)


def height_sigma_nm(frames: FramePatches, height_nm: Tensor, setting: Setting) -> Tensor:
    """Standard deviation (N, h, w) of heights from frames, by the inverse of the information on (A, B, phase) of each pixel."""
    total = arguments_rad(frames, height_nm)
    slopes = torch.stack([torch.ones_like(total), total.cos(), -setting.contrast_dn * total.sin()], dim=-1).movedim(
        2, -2
    )
    variance = torch.linalg.inv(slopes.mT @ slopes)[..., 2, 2] * setting.noise_dn**2
    scale = 4 * math.pi / frames.wavelengths_nm[:, :, None, None]
    return (scale**2 / variance).sum(dim=1).rsqrt()


def scene(setting: Setting | None = None, seed: int = 0) -> PatchBatch:
    """Patches whose guide has noise of its sigma, and frames with another noise; a tenth of the pixels is invalid."""
    setting = setting or Setting()
    truth = surface_nm(setting.patches, setting.size, setting.dtype)
    generator = torch.Generator().manual_seed(seed + 100)
    frames = framed(truth, setting, seed)
    sigma = torch.ones_like(truth)
    if setting.frames > 2 and setting.noise_dn > 0:
        sigma = height_sigma_nm(frames, truth, setting).to(truth)
    guide = truth + sigma * torch.randn(truth.shape, generator=generator, dtype=truth.dtype)
    valid = torch.rand(truth.shape, generator=generator) > 0.1
    count = len(truth)
    return PatchBatch(
        planes=Planes(guide, sigma, valid),
        unit_nm=sigma.flatten(1).median(dim=1).values.float(),
        half_wave_nm=torch.full((count,), min(setting.waves) / 2),
        place=torch.stack([torch.zeros(count), torch.zeros(count), 16.0 * torch.arange(count)], dim=1).long(),
        truth_nm=truth,
        frames=frames,
        joints=torch.tensor([[0, 1, 0, 16, 0, 0, setting.size, 8]]) if count > 1 else None,
    )


def guess(batch: PatchBatch, seed: int = 1) -> Prediction:
    """A prediction on leaves of a graph, a few sigmas off the guide."""
    generator = torch.Generator().manual_seed(seed)
    like = batch.planes.height_nm
    noise = [torch.randn(like.shape, generator=generator, dtype=like.dtype) for _ in range(3)]
    height = like + 2 * batch.planes.sigma_nm.nan_to_num(1.0) * noise[0]
    return Prediction(height.requires_grad_(), noise[1].requires_grad_(), noise[2].requires_grad_())
