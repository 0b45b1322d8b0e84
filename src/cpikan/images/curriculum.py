"""Training on coarse maps first: what a batch is at lower resolution, and when to go on to the next."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, pixel_unshuffle

from cpikan.errors import InputError
from cpikan.images.features import FeatureSpec, PatchBatch, Planes, noise_unit_nm
from cpikan.images.losses.base import Loss

LEAST_CONTRAST = 0.5  # of a block's mean phasor: below, its pixels disagree by more than a quarter of a half wave
SLOPE_PX = 4  # least side of the blocks that slopes are taken over: one wrong order spoils 2 of 12 differences


@dataclass
class Curriculum:
    """Which part of the resolution to train at: blocks of ``stages`` pixels, coarse to fine, the last one 1.

    A stage ends when the validation loss has not fallen by ``least_gain`` (relative) for ``patience`` validations, or after
    ``most_steps`` of its own (0: no bound); the last one never ends here. The network, its optimizer and their moments simply
    go on: nothing is made anew. Raises InputError for stages that are no falling powers of two down to 1.
    """

    stages: tuple[int, ...] = (4, 2, 1)
    patience: int = 3
    least_gain: float = 0.01
    most_steps: int = 0

    def __post_init__(self) -> None:
        stages = tuple(self.stages) if isinstance(self.stages, list | tuple) else ()
        powers = all(isinstance(stage, int) and stage > 0 and stage & (stage - 1) == 0 for stage in stages)
        if not stages or not powers or stages[-1] != 1 or any(a <= b for a, b in pairwise(stages)):
            raise InputError(
                f"stages {self.stages!r} of the curriculum: give falling powers of two, such as [8, 4, 2, 1]"
            )
        for name, least in (("patience", 1), ("most_steps", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(f"{name} {value!r} of the curriculum: give a count of {least} or more")
        if not (isinstance(self.least_gain, int | float) and 0 <= self.least_gain < 1):
            raise InputError(f"least_gain {self.least_gain!r} of the curriculum: give a share such as 0.01")
        self.stages = stages
        self._stage, self._since_step, self._best, self._waited = 0, 0, math.inf, 0

    @property
    def factor(self) -> int:
        """Return the side in pixels of the blocks that are one pixel now."""
        return self.stages[self._stage]

    @property
    def last(self) -> bool:
        """Tell whether the present stage is full resolution."""
        return self._stage == len(self.stages) - 1

    def check(self, losses: Iterable[tuple[float, Loss]], patch_px: int, multiple_px: int = 1) -> None:
        """Raise InputError where losses need frames, or patches are too small for the coarsest stage; before training
        starts."""
        coarsest = self.stages[0]
        if coarsest == 1:
            return
        frames = [loss.name for _, loss in losses if "frames" in loss.needs]
        if frames:
            raise InputError(
                f"loss {', '.join(frames)} under a curriculum: intensities cannot be decimated, fringes would cancel; leave "
                "the loss out or give stages [1]"
            )
        if patch_px % (coarsest * multiple_px):
            raise InputError(
                f"patches of {patch_px} pixels under a curriculum that starts at 1/{coarsest}: give a multiple of "
                f"{coarsest * multiple_px}"
            )

    def update(self, validation_loss: float, step: int) -> bool:
        """Take note of a validation loss after ``step`` steps in all; True where training goes on at the next stage.

        Validation losses of different stages are not compared.
        """
        if self.last:
            return False
        least = math.inf if math.isinf(self._best) else self._best - self.least_gain * abs(self._best)
        if validation_loss < least:
            self._best, self._waited = validation_loss, 0
        else:
            self._waited += 1
        spent = self.most_steps and step - self._since_step >= self.most_steps
        if self._waited < self.patience and not spent:
            return False
        self._stage += 1
        self._since_step, self._best, self._waited = step, math.inf, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return a state for JSON; the best loss is None before the first validation of a stage."""
        best = None if math.isinf(self._best) else self._best
        return {"stage": self._stage, "since_step": self._since_step, "best": best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the stage of a `state_dict`; raises InputError for a stage that this curriculum does not have."""
        if not 0 <= state["stage"] < len(self.stages):
            raise InputError(
                f"stage {state['stage']} of a curriculum of {len(self.stages)}: the checkpoint is of another run"
            )
        self._stage, self._since_step, self._waited = (int(state[name]) for name in ("stage", "since_step", "waited"))
        self._best = math.inf if state["best"] is None else float(state["best"])


def decimate(batch: PatchBatch, factor: int, spec: FeatureSpec | None = None) -> PatchBatch:
    """Reduce the batch to 1 / ``factor`` of its resolution, by block means of phasors of height at half the finest wavelength.

    Phasors are referred to the slope (median of differences) and the median height of their own block, so none wraps and
    pixels of wrong order do not pull. The truth is treated alike. A block is valid where half of its pixels are and their
    phasors agree; its sigma is that of the mean. The unit of noise is found anew, for the finest of the periods of ``spec``;
    phases (relative to the guide) need the wavelengths of ``spec``. Frames are dropped: intensities of fringes cannot be
    decimated. Joints stay where the blocks of both patches meet.

    Raises InputError for patches that are no multiple of ``factor``.
    """
    spec = spec or FeatureSpec()
    if factor == 1:
        return batch
    height, width = batch.planes.height_nm.shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise InputError(f"patches of {height} x {width} pixels at 1/{factor}: give multiples of {factor}")
    planes, half_wave = batch.planes, batch.half_wave_nm[:, None, None]
    means, good = phasor_means(planes.height_nm, planes.valid, half_wave, factor)
    counts = _blocks(planes.valid, factor).sum(dim=1)
    variance = _blocks(torch.where(planes.valid, planes.sigma_nm, 0.0) ** 2, factor).sum(dim=1)
    sigma = torch.where(good, variance.sqrt() / counts.clamp_min(1), 1.0)
    coarse = Planes(means, sigma, good, _phases(batch, means, good, factor, spec), _modulation(planes, factor))
    truth = None
    if batch.truth_nm is not None:
        found, known = phasor_means(batch.truth_nm, planes.valid & batch.truth_nm.isfinite(), half_wave, factor)
        truth = torch.where(known, found, torch.nan)
    units = [noise_unit_nm(*maps, min(spec.periods)) for maps in zip(means, sigma, good, strict=True)]
    unit = torch.tensor(units).to(batch.unit_nm)
    joints = None if batch.joints is None else _joints(batch.joints, factor)
    return replace(batch, planes=coarse, unit_nm=unit, truth_nm=truth, frames=None, joints=joints)


def phasor_means(height_nm: Tensor, valid: Tensor, period_nm: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Average heights (N, H, W) over blocks of ``factor`` squared pixels, by means of phasors exp(2 pi i h / period); where
    they hold.

    ``period_nm`` (N, 1, 1). Blocks with fewer than half of their pixels valid, or a contrast below 0.5, do not hold: height 0.
    """
    pixels = torch.where(valid, height_nm, torch.nan)
    slopes = _slopes(pixels, factor)
    inside = torch.arange(factor, device=pixels.device, dtype=pixels.dtype) - (factor - 1) / 2
    rows, columns = inside.repeat_interleave(factor)[:, None, None], inside.repeat(factor)[:, None, None]
    level = _blocks(pixels, factor) - (slopes[0][:, None] * rows + slopes[1][:, None] * columns)
    reference = level.nanmedian(dim=1).values
    turns = (level - reference[:, None]) / period_nm[:, None]
    chosen = turns.isfinite()
    angle = (2 * math.pi) * torch.where(chosen, turns, 0.0)
    count = chosen.sum(dim=1)
    real, imaginary = (
        torch.where(chosen, part, 0.0).sum(dim=1) / count.clamp_min(1) for part in (angle.cos(), angle.sin())
    )
    good = (2 * count >= factor**2) & (torch.hypot(real, imaginary) >= LEAST_CONTRAST)
    mean = reference + period_nm / (2 * math.pi) * torch.atan2(imaginary, real)
    return torch.where(good, mean, 0.0), good


def _slopes(pixels: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Compute median differences in y and x per block (N, H, W), NaN among pixels left out; zero where there are none."""
    side = max(factor, SLOPE_PX)
    shape = [size // factor for size in pixels.shape[-2:]]
    short = [-size % side for size in pixels.shape[-2:]]
    padded = pad(pixels, (0, short[1], 0, short[0]), value=torch.nan)
    found = []
    for axis, grow in ((1, (0, 0, 0, 1)), (2, (0, 1, 0, 0))):
        steps = pad(padded.diff(dim=axis), grow, value=torch.nan)
        blocks = _blocks(steps, side).unflatten(1, (side, side)).narrow(axis, 0, side - 1)  # none across the rim
        slope = blocks.flatten(1, 2).nanmedian(dim=1).values
        slope = torch.where(slope.isfinite(), slope, 0.0)
        for each in (1, 2):
            slope = slope.repeat_interleave(side // factor, dim=each)
        found.append(slope[:, : shape[0], : shape[1]])
    return found[0], found[1]


def _blocks(plane: Tensor, factor: int) -> Tensor:
    """List pixels of each block, row after row: (N, factor squared, h / factor, w / factor)."""
    return pixel_unshuffle(plane[:, None], factor)


def _phases(batch: PatchBatch, means: Tensor, good: Tensor, factor: int, spec: FeatureSpec) -> Tensor | None:
    phase = batch.planes.phase_rad
    if phase is None:
        return None
    if len(spec.wavelengths_nm) != phase.shape[1]:
        raise InputError(
            f"{phase.shape[1]} phases at lower resolution for {len(spec.wavelengths_nm)} wavelengths: give those of the model"
        )
    found = []
    for index, wavelength in enumerate(spec.wavelengths_nm):
        # phasors are averaged relative to the guide, so fringes do not cancel
        height = torch.where(batch.planes.valid, batch.planes.height_nm, 0.0)
        away = phase[:, index] - (4 * math.pi / wavelength) * height
        real, imaginary = (
            _blocks(torch.where(batch.planes.valid, part, 0.0), factor).sum(dim=1) for part in (away.cos(), away.sin())
        )
        mean = torch.atan2(imaginary, real) + (4 * math.pi / wavelength) * means
        found.append(torch.where(good, torch.atan2(mean.sin(), mean.cos()), 0.0))
    return torch.stack(found, dim=1)


def _modulation(planes: Planes, factor: int) -> Tensor | None:
    if planes.modulation is None:
        return None
    count = _blocks(planes.valid, factor).sum(dim=1).clamp_min(1)
    return _blocks(torch.where(planes.valid, planes.modulation, 0.0), factor).sum(dim=1) / count


def _joints(joints: Tensor, factor: int) -> Tensor:
    kept = []
    for i, j, *corners, height, width in joints.tolist():
        row_i, column_i, row_j, column_j = corners
        if (row_i - row_j) % factor or (column_i - column_j) % factor:
            continue
        starts = [-(-start // factor) for start in corners]  # whole blocks inside the overlap
        rows, columns = (row_i + height) // factor - starts[0], (column_i + width) // factor - starts[1]
        if rows > 0 and columns > 0:
            kept.append([i, j, *starts, rows, columns])
    return torch.tensor(kept, dtype=torch.int64).reshape(-1, 8)
