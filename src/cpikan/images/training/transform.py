"""Changes of a batch before the network is shown it: recorrupted frames, or a coarser resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.images.curriculum import Curriculum, decimate
from cpikan.images.features import FeatureSpec, FramePatches, PatchBatch, Planes
from cpikan.images.losses.physics import (
    Fringe,
    fringe,
    height_information,
    noise_dn,
    phase_of_height,
    radians_per_nm,
    wave,
    wrapped,
)


def recorrupt(batch: PatchBatch, alpha: float, generator: torch.Generator | None = None) -> PatchBatch:
    """Make a batch to learn denoising on, made of frames I with noise z of their own kind: planes of I + alpha z for the
    model to be shown, frames I - z / alpha for the physics loss to judge it by.

    The noises of the two, n + alpha z and n - z / alpha, are uncorrelated where z has the variance of n, Gaussian ones
    independent: the least expected loss is that against clean frames (Recorrupted-to-Recorrupted, Pang et al., CVPR
    2021, theorem 1, with z white since frames are). z is drawn with the standard deviation that `fringes.noise_dn` finds
    from sigma_nm. Heights are those of the phases at the orders nearest to the guide, weighted over the wavelengths by one over
    their variance; sigma and the unit of noise grow by sqrt(1 + alpha^2). Pixels whose phases the steps leave open become
    invalid; the truth stays, joints too. The chi-squared of the true height is 1 / alpha^2 per degree of freedom.

    ``generator`` decides z. Raises InputError where there are no frames, fewer than three of them, or alpha is not positive.
    """
    if batch.frames is None or batch.frames.frames_dn.shape[2] < 3:
        raise InputError("recorruption without frames: give batches with three or more frames per wavelength")
    if not (math.isfinite(alpha) and alpha > 0):
        raise InputError(f"recorruption with alpha {alpha!r}: give a number above zero, such as 1")
    frames = batch.frames
    shape, device = frames.frames_dn.shape, frames.frames_dn.device
    drawn_on = device if generator is None else generator.device
    noise = torch.randn(shape, generator=generator, device=drawn_on).to(device) * noise_dn(batch)[:, None, None]
    shown = replace(frames, frames_dn=frames.frames_dn + alpha * noise)
    judged = replace(frames, frames_dn=frames.frames_dn - noise / alpha)
    planes = _planes(batch.planes, frames, shown, math.sqrt(1 + alpha**2))
    return replace(batch, planes=planes, unit_nm=_unit_nm(batch, math.sqrt(1 + alpha**2)), frames=judged)


def _planes(guide: Planes, old: FramePatches, new: FramePatches, more_noise: float) -> Planes:
    """Make planes of ``new`` frames at the orders nearest to the guide."""
    before, after = _fringes(old), _fringes(new)
    # the contrast of one pixel is noisy: the weights of both come from the old frames, and so does which pixels count
    information = height_information(old, before)
    valid = guide.valid & (information > 0)
    height = torch.where(valid, guide.height_nm, 0.0)
    shift = torch.zeros_like(height)
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        scale = radians_per_nm(old)[:, index]
        away = wrapped(now.phase_rad - phase_of_height(height, old.wavelengths_nm[:, index]))
        share = scale**2 * was.information / torch.where(valid, information, 1.0)
        shift += torch.where(valid, share * away / scale, 0.0)
    phase = None if guide.phase_rad is None else torch.stack([now.phase_rad for now in after], dim=1)
    modulation = guide.modulation
    if modulation is not None:
        contrasts = [torch.stack([one.contrast_dn for one in part]).sum(dim=0) for part in (before, after)]
        modulation = modulation * contrasts[1] / contrasts[0].clamp_min(1e-6)
    return Planes(height + shift, guide.sigma_nm * more_noise, valid, phase, modulation)


def _fringes(frames: FramePatches) -> list[Fringe]:
    return [fringe(wave(frames, index)) for index in range(frames.frames_dn.shape[1])]


def _unit_nm(batch: PatchBatch, more_noise: float) -> Tensor:
    """Compute the unit of noise: the greater of sigma and what slopes ask for, of which sigma alone grows."""
    sigma = torch.where(batch.planes.valid, batch.planes.sigma_nm, torch.nan).flatten(1).nanmedian(dim=1).values
    sigma = torch.where(sigma.isfinite(), sigma, batch.unit_nm)
    return torch.maximum(batch.unit_nm, more_noise * torch.minimum(batch.unit_nm, sigma.to(batch.unit_nm)))


@dataclass(frozen=True)
class PatchTransform:
    """Recorruption with ``alpha`` (0: none) and the stage of a ``curriculum`` (None: full resolution)."""

    spec: FeatureSpec
    alpha: float = 0.0
    curriculum: Curriculum | None = None

    def __post_init__(self) -> None:
        if self.alpha and self.curriculum is not None and self.curriculum.stages[0] > 1:
            raise InputError(
                "[training] recorrupt under a curriculum: frames cannot be decimated, so nothing could judge them; leave one "
                "of the two out"
            )

    @property
    def last(self) -> bool:
        """Tell whether no change is to come."""
        return self.curriculum is None or self.curriculum.last

    @property
    def factor(self) -> int:
        """Return the side in pixels of the blocks that are one pixel now."""
        return 1 if self.curriculum is None else self.curriculum.factor

    def apply(self, batch: PatchBatch, key: tuple[int, ...]) -> PatchBatch:
        """Make the batch to learn from; noise is drawn from ``key`` alone, so a resumed run draws the same."""
        if self.alpha:
            seed = int(np.random.SeedSequence(key).generate_state(1, np.uint32)[0])
            generator = torch.Generator(batch.unit_nm.device).manual_seed(seed)
            batch = recorrupt(batch, self.alpha, generator)
        return decimate(batch, self.factor, self.spec)

    def on_validation(self, loss: float, step: int) -> bool:
        """Tell the curriculum a validation loss; True where it goes on to its next stage."""
        return self.curriculum is not None and self.curriculum.update(loss, step)
