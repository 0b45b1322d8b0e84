"""Augmentation that keeps the physics: what is done to the pixels is done to tilts, pivots, steps and joints as well."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpikan.images.features import FramePatches, PatchBatch, Planes

SYMMETRIES = 8


@dataclass(frozen=True)
class Symmetry:
    """One of the eight flips and rotations of a square of ``size`` pixels: first rows and columns swapped, then flipped."""

    size: int
    swapped: bool
    flipped_y: bool
    flipped_x: bool

    @classmethod
    def numbered(cls, number: int, size: int) -> Symmetry:
        """Make symmetry ``number`` 0 to 7; 0 leaves everything as it is."""
        return cls(size, bool(number & 4), bool(number & 2), bool(number & 1))

    def pixels(self, values: Tensor) -> Tensor:
        """Turn an image (..., size, size)."""
        turned = values.transpose(-2, -1) if self.swapped else values
        axes = [axis for axis, flipped in ((-2, self.flipped_y), (-1, self.flipped_x)) if flipped]
        return (torch.flip(turned, axes) if axes else turned).contiguous()

    def slopes(self, values: Tensor) -> Tensor:
        """Turn components (..., 2) in y and x of a slope."""
        return self._swap(values) * torch.tensor(
            [-1.0 if self.flipped_y else 1.0, -1.0 if self.flipped_x else 1.0], dtype=values.dtype
        )

    def points(self, values: Tensor) -> Tensor:
        """Turn positions (..., 2) in y and x of pixels, fractions allowed."""
        moved = self._swap(values)
        flipped = torch.tensor([self.flipped_y, self.flipped_x])
        return torch.where(flipped, self.size - 1 - moved, moved)

    def joints(self, values: Tensor) -> Tensor:
        """Turn joints (M, 8) between patches that are all turned alike."""
        pairs, first, second, extent = values.split(2, dim=1)
        extent = self._swap(extent)
        flipped = torch.tensor([self.flipped_y, self.flipped_x])
        corners = [
            torch.where(flipped, self.size - self._swap(corner) - extent, self._swap(corner))
            for corner in (first, second)
        ]
        return torch.cat([pairs, *corners, extent], dim=1)

    def _swap(self, values: Tensor) -> Tensor:
        return values.flip(-1) if self.swapped else values


def apply_symmetry(batch: PatchBatch, symmetry: Symmetry) -> PatchBatch:
    """Flip or rotate all patches of a batch alike; ``place`` still tells where they were cut."""
    pixels = symmetry.pixels
    frames = batch.frames
    if frames is not None:
        frames = replace(
            frames,
            frames_dn=pixels(frames.frames_dn),
            tilt_rad_px=symmetry.slopes(frames.tilt_rad_px),
            pivot_px=symmetry.points(frames.pivot_px),
        )
    return replace(
        batch,
        planes=Planes(*(None if plane is None else pixels(plane) for plane in batch.planes)),  # type: ignore[arg-type]
        truth_nm=None if batch.truth_nm is None else pixels(batch.truth_nm),
        frames=frames,
        joints=None if batch.joints is None else symmetry.joints(batch.joints),
    )


def add_piston(batch: PatchBatch, piston_nm: float, wavelengths_nm: tuple[float, ...]) -> PatchBatch:
    """Raise guide and truth of a batch by ``piston_nm``; phases and steps follow, so that the frames stay explained."""
    planes, frames = batch.planes, batch.frames
    turned = torch.tensor([4 * math.pi * math.fmod(piston_nm, wave / 2) / wave for wave in wavelengths_nm])
    if planes.phase_rad is not None:
        planes = planes._replace(phase_rad=_wrapped(planes.phase_rad + turned[:, None, None]))
    if frames is not None:
        frames = replace(frames, step_rad=_wrapped(frames.step_rad - turned[:, None]))
    height = torch.where(planes.valid, planes.height_nm + piston_nm, planes.height_nm)
    truth = None if batch.truth_nm is None else batch.truth_nm + piston_nm
    return replace(batch, planes=planes._replace(height_nm=height), truth_nm=truth, frames=frames)


def reorder(frames: FramePatches, order: Tensor) -> FramePatches:
    """Put the frames of each wavelength into ``order`` (L, K), their steps and tilts with them."""

    def along(values: Tensor) -> Tensor:
        return torch.stack([values[:, wave, chosen] for wave, chosen in enumerate(order)], dim=1)

    return replace(
        frames,
        frames_dn=along(frames.frames_dn),
        step_rad=along(frames.step_rad),
        tilt_rad_px=along(frames.tilt_rad_px),
    )


def corrupt_orders(
    batch: PatchBatch, corners: tuple[tuple[int, int], ...], share: float, draw: np.random.Generator
) -> PatchBatch:
    """Give about ``share`` of the pixels of the guide a wrong order: one or two half waves off, as single pixels or 3 x 3.

    The truth, the frames and their phases stay. ``corners`` tell where the patches lie: what they share is corrupted alike.
    """
    size = batch.planes.height_nm.shape[-1]
    top, left = (min(corner[axis] for corner in corners) for axis in (0, 1))
    bottom, right = (max(corner[axis] for corner in corners) + size for axis in (0, 1))
    extent = bottom - top, right - left
    # a block has nine pixels: half of the share is blocks, half single ones
    kind = draw.random(extent)
    jump = draw.choice([-2.0, -1.0, 1.0, 2.0], size=extent)
    field = np.where(kind < share / 2, jump, 0.0)
    for y, x in np.argwhere(kind > 1 - share / 18):
        field[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = jump[y, x]
    cut = [field[y - top : y - top + size, x - left : x - left + size] for y, x in corners]
    orders = torch.from_numpy(np.stack(cut).astype(np.float32)) * batch.half_wave_nm[:, None, None]
    planes = batch.planes
    height = torch.where(planes.valid, planes.height_nm + orders, planes.height_nm)
    return replace(batch, planes=planes._replace(height_nm=height))


def _wrapped(phase_rad: Tensor) -> Tensor:
    return torch.remainder(phase_rad + math.pi, 2 * math.pi) - math.pi
