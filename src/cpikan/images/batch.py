"""Patches as training takes them: maps, what is known of the truth, and the frames they were made from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cpikan.images.features import Planes


@dataclass(frozen=True)
class FramePatches:
    """Raw frames of N patches: ``frames_dn`` (N, L, K, h, w) float32, ``step_rad`` (N, L, K), ``tilt_rad_px`` (N, L, K, 2)
    per pixel in y and x, about the pixel ``pivot_px`` (N, 2) of the patch, and ``wavelengths_nm`` (N, L).

    The model of a pixel is I = A + B cos(4 pi h / lambda + step + tilt . (r - pivot)).
    """

    frames_dn: Float[Tensor, "n l k h w"]
    step_rad: Float[Tensor, "n l k"]
    tilt_rad_px: Float[Tensor, "n l k 2"]
    pivot_px: Float[Tensor, "n 2"]
    wavelengths_nm: Float[Tensor, "n l"]


@dataclass(frozen=True)
class PatchBatch:
    """N patches of h x w pixels; all tensors begin with N.

    ``planes`` are those of the guide; ``unit_nm`` (N,) its noise, ``half_wave_nm`` (N,) half of the finest wavelength;
    ``truth_nm`` (N, h, w) is NaN where nothing is known, None where no stack has a truth; ``place`` (N, 3) int64 is the
    number of the stack, the first row and the first column of the patch (before any flip). ``joints`` (M, 8) int64 names
    the overlaps of neighbouring patches: patches i and j, first row and column of the overlap in i, then in j, its height
    and width, in pixels of the patches as they are (after any flip).
    """

    planes: Planes
    unit_nm: Float[Tensor, " n"]
    half_wave_nm: Float[Tensor, " n"]
    place: Int64[Tensor, "n 3"]
    truth_nm: Float[Tensor, "n h w"] | None = None
    frames: FramePatches | None = None
    joints: Int64[Tensor, "m 8"] | None = None

    def __len__(self) -> int:
        return len(self.unit_nm)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> PatchBatch:
        """Move the patches to ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PatchBatch:
        """Copy the patches to page-locked memory, from which a device copies while it computes."""
        return self._each(lambda tensor: tensor.pin_memory())

    def part(self, chosen: slice | Tensor) -> PatchBatch:
        """Pick some of the patches, without their joints."""
        return replace(self._each(lambda tensor: tensor[chosen]), joints=None)

    def _each(self, change: Callable[[Tensor], Tensor]) -> PatchBatch:
        """Change all tensors that begin with N."""
        names = [field.name for field in fields(self) if field.name != "joints"]
        return replace(self, **{name: _joined([getattr(self, name)], lambda one: change(one[0])) for name in names})


def stack_patches(patches: list[PatchBatch]) -> PatchBatch:
    """Stack several patches, in order; those without a truth among others with one get NaN. Joints are renumbered."""
    truth = None
    if any(patch.truth_nm is not None for patch in patches):
        blank = [torch.full_like(patch.planes.height_nm, torch.nan) for patch in patches]
        truth = torch.cat([b if p.truth_nm is None else p.truth_nm for p, b in zip(patches, blank, strict=True)])
    names = ("planes", "frames", "unit_nm", "half_wave_nm", "place")
    rest = {name: _joined([getattr(patch, name) for patch in patches], torch.cat) for name in names}
    firsts = itertools.accumulate((len(patch) for patch in patches), initial=0)
    shift = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0])
    joints = [p.joints + at * shift for p, at in zip(patches, firsts, strict=False) if p.joints is not None]
    return PatchBatch(truth_nm=truth, joints=torch.cat(joints) if joints else None, **rest)


def _joined(values: Sequence[Any], join: Callable[[list[Tensor]], Tensor]) -> Any:
    """Join tensors, or planes and frames tensor by tensor; None where the first is None."""
    first = values[0]
    if first is None:
        return None
    if isinstance(first, Planes):
        return Planes._make(_joined(planes, join) for planes in zip(*values, strict=True))
    if isinstance(first, FramePatches):
        names = [field.name for field in fields(FramePatches)]
        return FramePatches(**{name: _joined([getattr(value, name) for value in values], join) for name in names})
    return join(list(values))
