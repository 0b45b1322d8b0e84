"""What an image model is shown of a map, and how its answer is read: both free of absolute heights and of units.

Absolute height from periodic fringes is ill posed, so a model is never asked for it. It is shown how the height that the
phases and orders already give (the guide) differs from pixel to pixel, in noise standard deviations and wrapped to a few
synthetic periods: next to a step of any size the noise still shows, and nothing changes when the whole map is lifted. Phasors
at the same periods (cos, sin of the guide) hold as much, but a network would have to multiply them before it can average them.

Where a model is made for certain wavelengths it is also shown the demodulated phasors, relative to the guide. It answers with
a correction in standard deviations, the log-odds that the order is wrong, and the log-variance of what is left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from cpikan.errors import InputError

OUTPUTS = 3  # correction in sigmas, log-odds of a wrong order, log-variance of what is left (in sigmas squared)
_STRENGTH = 8.0  # brings the noise of the finest period to about one
STEEPEST = 1 / 6  # of the finest period: a difference between neighbours that slopes alone may make


class Planes(NamedTuple):
    """Maps of N patches: ``height_nm`` (guide) and ``sigma_nm`` (N, h, w) float32, ``valid`` (N, h, w) bool, and where the
    model asks for them the wrapped phases ``phase_rad`` (N, L, h, w) and ``modulation`` (N, h, w) relative to its median.

    Values of invalid pixels are not looked at, NaN included.
    """

    height_nm: Tensor
    sigma_nm: Tensor
    valid: Tensor
    phase_rad: Tensor | None = None
    modulation: Tensor | None = None


class Prediction(NamedTuple):
    """What a model says of N patches (N, h, w): ``height_nm``, the log-odds ``order_logit`` that the guide's order is wrong
    and ``log_variance`` of (height - truth) / sigma."""

    height_nm: Tensor
    order_logit: Tensor
    log_variance: Tensor


@dataclass(frozen=True)
class FeatureSpec:
    """Which channels a model takes.

    Differences of the guide down and across, wrapped to ``periods`` (in units of noise); what it lies off its means over
    squares of ``means_px`` pixels (bounded softly, in units of noise); log of sigma over the unit; validity; with
    ``wavelengths_nm`` also a phasor per wavelength relative to the guide, with ``modulation`` that.

    >>> FeatureSpec().channels
    10
    """

    periods: tuple[float, ...] = (16.0, 128.0)
    means_px: tuple[int, ...] = (3, 7, 15, 31)
    wavelengths_nm: tuple[float, ...] = ()
    modulation: bool = False

    def __post_init__(self) -> None:
        means = tuple(self.means_px)
        object.__setattr__(self, "means_px", means)
        if not all(isinstance(side, int) and side > 1 and side % 2 for side in means):
            raise InputError(f"means_px {list(means)} of a model: give odd numbers of pixels above one")
        for name in ("periods", "wavelengths_nm"):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
            if not all(math.isfinite(value) and value > 0 for value in values):
                raise InputError(f"{name} {list(values)} of a model: give positive numbers")
        if not self.periods:
            raise InputError("periods [] of a model: give at least one, such as 16")

    @property
    def channels(self) -> int:
        return 2 * len(self.periods) + len(self.means_px) + 2 + 2 * len(self.wavelengths_nm) + int(self.modulation)

    @property
    def reach_px(self) -> int:
        """Return how far from a pixel its channels look, in pixels."""
        return max([1, *(side // 2 for side in self.means_px)])

    def config(self) -> dict[str, Any]:
        """Write the channels down for JSON; `FeatureSpec(**config)` gives it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def check(self, wavelengths_nm: tuple[float, ...]) -> None:
        """Raise InputError where the model was made for other wavelengths than those of a stack."""
        mine = self.wavelengths_nm
        same = len(mine) == len(wavelengths_nm) and all(
            math.isclose(a, b, rel_tol=1e-3) for a, b in zip(mine, wavelengths_nm, strict=True)
        )
        if mine and not same:
            names = [", ".join(f"{value:g} nm" for value in waves) for waves in (mine, wavelengths_nm)]
            raise InputError(
                f"the model was made for {len(mine)} wavelengths ({names[0]}), the stack has {len(wavelengths_nm)} "
                f"({names[1]}): give a model made for these, or one of heights alone"
            )


def features(
    planes: Planes, spec: FeatureSpec, unit_nm: Float[Tensor, " n"]
) -> Float32[Tensor, "n {spec.channels} h w"]:
    """Compute channels (N, spec.channels, h, w) float32 of patches; ``unit_nm`` (N,) is the noise that periods are counted in.

    Phase arithmetic is float32 whatever autocast says. Raises InputError where a plane is missing.
    """
    for name, wanted in (("phase_rad", spec.wavelengths_nm), ("modulation", spec.modulation)):
        if wanted and getattr(planes, name) is None:
            raise InputError(f"the model takes {name}, which was not given: give the planes it was made for")
    with torch.autocast(planes.height_nm.device.type, enabled=False):
        valid, unit = planes.valid, unit_nm.float()[:, None, None]
        height = torch.where(valid, planes.height_nm, 0.0)
        sigma = torch.where(valid, planes.sigma_nm, 1.0)
        shown = valid.float()
        channels = []
        for axis in (-1, -2):
            turns, both = _forward(height, valid, axis)
            for period in spec.periods:
                share = turns / (unit * period)
                # wrapped: noise shows next to a step of any size, and a step only says that there is one
                channels.append(torch.where(both, (share - share.round()) * _STRENGTH, 0.0))
        margin = spec.reach_px
        summed, counted = (_summed(plane, margin) for plane in (height, shown)) if spec.means_px else (height, shown)
        for side in spec.means_px:
            mean = _box(summed, side, margin) / _box(counted, side, margin).clamp_min(1.0)
            off = torch.where(valid, height - mean, 0.0) / unit
            channels.append(off / (1 + off.abs() / _STRENGTH))
        channels += [(sigma / unit).log() * shown, shown]
        for index, wavelength in enumerate(spec.wavelengths_nm):
            assert planes.phase_rad is not None
            turns = height * (2 / wavelength)
            angle = planes.phase_rad[:, index] - (2 * math.pi) * (turns - turns.round())
            channels += [torch.where(valid, angle.cos(), 0.0), torch.where(valid, angle.sin(), 0.0)]
        if spec.modulation:
            assert planes.modulation is not None
            channels.append(torch.where(valid, planes.modulation - 1.0, 0.0))
        return torch.stack(channels, dim=1)


def _summed(plane: Tensor, margin: int) -> Tensor:
    """Compute sums of (N, h, w) over all pixels above and left of each corner, float64, carried on by ``margin`` on all sides:
    (N, h + 1 + 2 margin, w + 1 + 2 margin)."""
    sums = functional.pad(plane.double().cumsum(dim=-1).cumsum(dim=-2), (margin + 1, 0, margin + 1, 0))
    return functional.pad(sums[:, None], (0, margin, 0, margin), mode="replicate")[:, 0]


def _box(summed: Tensor, side: int, margin: int) -> Tensor:
    """Compute sums over squares of ``side`` pixels around each pixel, cut at the rim, whatever the side at the same price."""
    height, width = (size - 1 - 2 * margin for size in summed.shape[-2:])
    low, high = margin - side // 2, margin + side // 2 + 1
    tall = summed[:, high : high + height] - summed[:, low : low + height]
    return (tall[..., high : high + width] - tall[..., low : low + width]).float()


def _forward(height: Tensor, valid: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Subtract each pixel from the next along ``axis``, zero at the last, and tell where both are valid."""
    size = height.shape[axis]
    step, both = torch.zeros_like(height), torch.zeros_like(valid)
    step.narrow(axis, 0, size - 1).copy_(height.diff(dim=axis))
    both.narrow(axis, 0, size - 1).copy_(valid.narrow(axis, 1, size - 1) & valid.narrow(axis, 0, size - 1))
    return step, both


def read_answer(answer: Float[Tensor, "n 3 h w"], planes: Planes) -> Prediction:
    """Read a network's answer (N, 3, h, w) for ``planes``; heights in float32 whatever the network computed in."""
    correction, logit, log_variance = answer.float().unbind(dim=1)
    sigma = torch.where(planes.valid, planes.sigma_nm, 0.0)  # where it is NaN, gradients would be too
    return Prediction(planes.height_nm + sigma * correction, logit, log_variance)


def predict(network: torch.nn.Module, planes: Planes, spec: FeatureSpec, unit_nm: Tensor) -> Prediction:
    """Show ``planes`` to ``network`` and read its answer."""
    return read_answer(network(features(planes, spec, unit_nm)), planes)


def noise_unit_nm(
    height_nm: Float[Tensor, "h w"], sigma_nm: Float[Tensor, "h w"], valid: Bool[Tensor, "h w"], finest_period: float
) -> float:
    """Compute the noise that a map's periods are counted in: the median sigma, or more where slopes would take a large part
    of the finest period from pixel to pixel; maps (h, w), samples of rows do."""
    if not valid.any():
        return 1.0
    sigma = sigma_nm[valid].double().median()
    steps = []
    for axis in (0, 1):
        both = valid.narrow(axis, 1, valid.shape[axis] - 1) & valid.narrow(axis, 0, valid.shape[axis] - 1)
        steps.append(height_nm.diff(dim=axis)[both].double().abs())
    step = torch.cat(steps)
    if not len(step):
        return float(sigma)
    # the median of |N(0, s)| is 0.6745 s; what differences have beyond their noise is slope
    slope = ((step.median() / 0.6745) ** 2 - 2 * sigma**2).clamp_min(0).sqrt()
    return float(torch.maximum(sigma, slope / (finest_period * STEEPEST)))


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
