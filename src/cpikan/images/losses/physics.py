"""How well heights explain the frames, whatever the light: fringes of patches, and what heights leave of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import avg_pool2d

from cpikan.images.features import FramePatches, PatchBatch, Prediction
from cpikan.images.losses.base import total, zero_of

FLATTEST = (
    1e-3  # least eigenvalue, per frame, of the normal matrix of (cos, sin): steps that tell less leave the phase open
)
BOX_PX = 9  # side of the square that the noise of frames is averaged over


class Wave(NamedTuple):
    """Frames (N, K, h, w) of one wavelength about their mean, their ``arguments`` (step + tilt . r) in rad (N, K, h, w), and
    ``usable`` (N, h, w) bool: finite frames whose steps are apart at this pixel."""

    light_dn: Tensor
    arguments: Tensor
    usable: Tensor


class Fringe(NamedTuple):
    """``phase_rad``, ``contrast_dn`` (B) and ``information`` (N, h, w): 1 / variance of the phase for frame noise of 1 DN."""

    phase_rad: Tensor
    contrast_dn: Tensor
    information: Tensor


def wave(frames: FramePatches, index: int, dtype: torch.dtype = torch.float32) -> Wave:
    """Gather frames and arguments of wavelength number ``index``."""
    light = frames.frames_dn[:, index].to(dtype)
    finite = light.isfinite().all(dim=1)
    light = torch.where(finite[:, None], light, 0.0)
    light = light - light.mean(dim=1, keepdim=True)
    arguments = _arguments(frames, index, dtype)
    apart = _least_eigenvalue(*_normal(arguments)[2:]) > FLATTEST * light.shape[1]
    return Wave(light, arguments, finite & apart)


def fringe(seen: Wave) -> Fringe:
    """Demodulate I = A + B cos(phase + argument) per pixel: least squares for A, B cos(phase), B sin(phase)."""
    cosine, sine, cc, cs, ss = _normal(seen.arguments)
    of_cos, of_sin = (cosine * seen.light_dn).sum(dim=1), (sine * seen.light_dn).sum(dim=1)
    determinant = torch.where(seen.usable, cc * ss - cs**2, 1.0)
    real, imaginary = (ss * of_cos - cs * of_sin) / determinant, (cc * of_sin - cs * of_cos) / determinant
    phase, contrast = torch.atan2(imaginary, real), torch.hypot(real, imaginary)
    # variance of the phase: the tangent (-sin, cos) through the inverse of the normal matrix, over B^2
    along = ss * phase.sin() ** 2 + 2 * cs * phase.sin() * phase.cos() + cc * phase.cos() ** 2
    information = torch.where(seen.usable, contrast**2 * determinant / along.clamp_min(1e-30), 0.0)
    return Fringe(phase, contrast, information)


def height_information(frames: FramePatches, fringes: list[Fringe]) -> Tensor:
    """Compute 1 / variance in nm^-2 of the height (N, h, w) that all wavelengths give, where the noise of frames is 1 DN."""
    scale = radians_per_nm(frames) ** 2
    return torch.stack([scale[:, index] * one.information for index, one in enumerate(fringes)]).sum(dim=0)


def noise_dn(batch: PatchBatch) -> Tensor:
    """Compute the standard deviation in DN (N, h, w) of the frames' noise, from the sigma of the heights.

    Height noise is phase noise, and phase noise is frame noise over modulation: sigma_I^2 = sigma_nm^2 times the information
    on the height that frames of unit noise would hold, B being that of the frames themselves. Its square is averaged over
    9 x 9 valid pixels, since light changes slowly and the B of one pixel is noisy. Zero where nothing is known.
    """
    assert batch.frames is not None
    waves = batch.frames.frames_dn.shape[1]
    fringes = [fringe(wave(batch.frames, index)) for index in range(waves)]
    information = height_information(batch.frames, fringes)
    use = batch.planes.valid & (information > 0)
    variance = torch.where(use, batch.planes.sigma_nm.float() ** 2 * information, 0.0)
    summed, count = (
        avg_pool2d(plane[:, None], BOX_PX, stride=1, padding=BOX_PX // 2, divisor_override=1)[:, 0]
        for plane in (variance, use.float())
    )
    return torch.where(use, summed / count.clamp_min(1), 0.0).clamp_min(0).sqrt()


def radians_per_nm(frames: FramePatches) -> Tensor:
    """Compute 4 pi / lambda (N, L, 1, 1)."""
    return (4 * math.pi / frames.wavelengths_nm.float())[:, :, None, None]


def phase_of_height(height_nm: Tensor, wavelength_nm: Tensor) -> Tensor:
    """Compute 4 pi h / lambda (N, h, w) less whole turns, of heights (N, h, w) and wavelengths (N,)."""
    # whole turns are taken off first: float32 keeps no fraction of a large argument in radians
    turns = height_nm * (2 / wavelength_nm.to(height_nm.dtype))[:, None, None]
    return (2 * math.pi) * (turns - turns.round())


def wrapped(phase_rad: Tensor) -> Tensor:
    """Wrap a phase to (-pi, pi]."""
    return phase_rad - (2 * math.pi) * (phase_rad / (2 * math.pi)).round()


def _arguments(frames: FramePatches, index: int, dtype: torch.dtype) -> Tensor:
    height, width = frames.frames_dn.shape[-2:]
    device = frames.frames_dn.device
    y = torch.arange(height, device=device, dtype=dtype)[:, None] - frames.pivot_px[:, 0, None, None].to(dtype)
    x = torch.arange(width, device=device, dtype=dtype) - frames.pivot_px[:, 1, None, None].to(dtype)
    step, tilt = frames.step_rad[:, index].to(dtype), frames.tilt_rad_px[:, index].to(dtype)
    slope_y, slope_x = (tilt[..., axis, None, None] for axis in (0, 1))
    return step[..., None, None] + slope_y * y[:, None] + slope_x * x[:, None]


def _normal(arguments: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute columns of B cos(phase) and B sin(phase) less their means over the frames, and sums of their products."""
    cosine, sine = arguments.cos(), -arguments.sin()
    cosine, sine = (part - part.mean(dim=1, keepdim=True) for part in (cosine, sine))
    return cosine, sine, (cosine**2).sum(dim=1), (cosine * sine).sum(dim=1), (sine**2).sum(dim=1)


def _least_eigenvalue(cc: Tensor, cs: Tensor, ss: Tensor) -> Tensor:
    return (cc + ss) / 2 - (((cc - ss) / 2) ** 2 + cs**2).sqrt()


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
