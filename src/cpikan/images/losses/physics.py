"""How well heights explain the frames, whatever the light: nothing but frames is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.autograd.function import once_differentiable

from cpikan.images.batch import FramePatches, PatchBatch
from cpikan.images.features import Prediction
from cpikan.images.losses.base import total, zero_of
from cpikan.images.losses.fringes import noise_dn, phase_of_height, wave


@dataclass(frozen=True)
class Physics:
    """Chi-squared per degree of freedom of I = A + B cos(4 pi h / lambda + step + tilt . r).

    A and B >= 0 have their least-squares values per pixel and wavelength (variable projection, Golub & Pereyra, SIAM J.
    Numer. Anal. 10, 413, 1973).

    The noise is that of the frames (`fringes.noise_dn`); at the true height the value is one. On the frames the
    guide came from its least value is at the noisy height: train on recorrupted ones (`self_supervision.recorrupt`). A pixel
    counts where its steps differ enough to tell the phase: K - 2 degrees of freedom for each such wavelength, so three frames
    or more. Gradients are first derivatives alone.
    """

    name: ClassVar[str] = "physics"
    needs: ClassVar[frozenset[str]] = frozenset({"frames"})

    def weight(self, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Count the degrees of freedom of the valid pixels."""
        if batch.frames is None:
            return batch.unit_nm.new_zeros((), dtype=torch.float64)
        chosen, frames = batch.planes.valid & (noise_dn(batch) > 0), batch.frames
        counts = [(wave(frames, index).usable & chosen).sum() for index in range(frames.frames_dn.shape[1])]
        return torch.stack(counts).sum().double() * max(frames.frames_dn.shape[2] - 2, 0)

    def sum(self, prediction: Prediction, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Sum chi squared of the frames over the pixels, scalar float64."""
        if batch.frames is None or batch.frames.frames_dn.shape[2] < 3:
            return zero_of(prediction)
        noise = noise_dn(batch)
        chosen = batch.planes.valid & (noise > 0)
        height = torch.where(chosen, prediction.height_nm, 0.0)
        chi_squared = frame_misfit(height, batch.frames) / torch.where(chosen, noise, 1.0) ** 2
        return total(chi_squared, chosen) + zero_of(prediction)


def frame_misfit(height_nm: Tensor, frames: FramePatches) -> Tensor:
    """Compute the least sum of squares in DN^2 (N, h, w) over A and B >= 0 of frames explained by heights (N, h, w), all
    wavelengths.

    Wavelengths whose steps leave the phase open at a pixel are left out there. Computed in the type of the heights, once
    differentiable.
    """
    return _Misfit.apply(height_nm, frames)


class _Misfit(torch.autograd.Function):
    """At the least-squares A and B the misfit does not change with them to first order, so its slope is that of fixed A and B:
    one number per pixel is kept for the way back instead of all frames."""

    @staticmethod
    def forward(ctx: Any, height_nm: Tensor, frames: FramePatches) -> Tensor:
        value, slope = torch.zeros_like(height_nm), torch.zeros_like(height_nm)
        for index in range(frames.frames_dn.shape[1]):
            seen, wavelength = wave(frames, index, height_nm.dtype), frames.wavelengths_nm[:, index]
            angle = phase_of_height(height_nm, wavelength)[:, None] + seen.arguments
            fringes = angle.cos()
            fringes = fringes - fringes.mean(dim=1, keepdim=True)
            power = torch.where(seen.usable, (fringes**2).sum(dim=1), 1.0)
            # a negative B would be a height a quarter of a wavelength off
            contrast = ((seen.light_dn * fringes).sum(dim=1) / power).clamp_min(0)
            left = seen.light_dn - contrast[:, None] * fringes
            value += torch.where(seen.usable, (left**2).sum(dim=1), 0.0)
            per_rad = 2 * contrast * (left * angle.sin()).sum(dim=1)
            per_nm = (4 * math.pi / wavelength.to(height_nm.dtype))[:, None, None]
            slope += torch.where(seen.usable, per_rad * per_nm, 0.0)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None
