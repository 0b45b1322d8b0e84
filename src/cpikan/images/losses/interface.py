"""Disagreement of neighbouring patches where they overlap: as a loss, or as a constraint with a multiplier a point."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from cpikan.errors import InputError
from cpikan.images.features import PatchBatch, Prediction
from cpikan.images.losses.base import positive, total, zero_of


class Overlap(NamedTuple):
    """Two patches ``i`` and ``j`` and their windows (rows, columns) on the pixels they share."""

    i: int
    j: int
    window_i: tuple[slice, slice]
    window_j: tuple[slice, slice]


def overlaps(batch: PatchBatch) -> Iterator[Overlap]:
    """List the overlaps that ``batch.joints`` names."""
    for i, j, row_i, column_i, row_j, column_j, height, width in [] if batch.joints is None else batch.joints.tolist():
        window_i = slice(row_i, row_i + height), slice(column_i, column_i + width)
        window_j = slice(row_j, row_j + height), slice(column_j, column_j + width)
        yield Overlap(i, j, window_i, window_j)


def shared(batch: PatchBatch, at: Overlap) -> Tensor:
    """Choose pixels of the overlap that are valid in both patches (h, w) bool."""
    return batch.planes.valid[at.i][at.window_i] & batch.planes.valid[at.j][at.window_j]


def disagreement(prediction: Prediction, batch: PatchBatch, at: Overlap) -> Tensor:
    """Subtract the height of patch j from that of i on their overlap (h, w), less whole half waves, in sigmas; zero where not
    shared."""
    chosen = shared(batch, at)

    def pair(plane: Tensor, blank: float) -> tuple[Tensor, Tensor]:
        return torch.where(chosen, plane[at.i][at.window_i], blank), torch.where(
            chosen, plane[at.j][at.window_j], blank
        )

    height_i, height_j = pair(prediction.height_nm, 0.0)
    sigma_i, sigma_j = pair(batch.planes.sigma_nm, 1.0)
    difference, half_wave = height_i - height_j, batch.half_wave_nm[at.i]
    difference = difference - half_wave * (difference.detach() / half_wave).round()
    return difference / ((sigma_i**2 + sigma_j**2) / 2).sqrt()


@dataclass(frozen=True)
class Interface:
    """Mean square of the disagreement of neighbouring patches in sigmas, over the valid pixels they share.

    Each pair is cropped to its overlap; differences of whole half waves do not count, since the guide decides orders.
    """

    name: ClassVar[str] = "interface"
    needs: ClassVar[frozenset[str]] = frozenset({"joints"})

    def weight(self, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Count valid pixels that patches share."""
        return shared_pixels(batch)

    def sum(self, prediction: Prediction, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Sum the squared disagreements on all overlaps, scalar float64."""
        result = zero_of(prediction)
        for at in overlaps(batch):
            result = result + (disagreement(prediction, batch, at) ** 2).sum(dtype=torch.float64)
        return result


def shared_pixels(batch: PatchBatch) -> Tensor:
    """Count valid pixels that patches share, scalar float64."""
    counts = [shared(batch, at).sum() for at in overlaps(batch)]
    if not counts:
        return batch.unit_nm.new_zeros((), dtype=torch.float64)
    return torch.stack(counts).sum().double()


# stack, first row and column of either patch, first row and column of the overlap, its height and width
Key = tuple[int, ...]


@dataclass
class _Joint:
    """What is kept of one overlap: multipliers (h, w) float32 on the CPU, penalty, last RMS, visits since an update."""

    multiplier: Tensor
    penalty: float
    rms: float = float("inf")
    visits: int = 0


class _Seen(NamedTuple):
    key: Key
    sign: float
    difference: Tensor
    chosen: Tensor


@dataclass
class InterfaceAL:
    """Sum of multiplier * D + penalty / 2 * D^2 over the pixels that patches share, D their disagreement in sigmas.

    D has a sign, so each point needs a multiplier of its own: one for all would meet a mean near zero. Multipliers belong to a
    place of a stack and therefore to regular patches without augmentation. Each overlap has its schedule: after ``every``
    steps multiplier += penalty * D, and where the RMS of D has not fallen to ``shrink`` times the last one, the penalty
    grows by ``growth`` up to ``most`` (Nocedal & Wright, Numerical Optimization, 2nd ed., algorithm 17.4). With every = 0
    only `update` changes them. Multipliers live in the process that sees the patches.
    """

    name: ClassVar[str] = "interface_al"
    needs: ClassVar[frozenset[str]] = frozenset({"joints"})
    penalty: float = 1.0
    growth: float = 2.0
    most: float = 100.0
    shrink: float = 0.5
    every: int = 10

    def __post_init__(self) -> None:
        self._joints: dict[Key, _Joint] = {}
        positive(self, "penalty", "growth", "most", "shrink")
        if self.growth < 1 or self.most < self.penalty or not isinstance(self.every, int) or self.every < 0:
            raise InputError(
                f"growth {self.growth!r}, most {self.most!r}, every {self.every!r} of the loss interface_al: give a growth "
                "of 1 or more, most at or above the penalty, and every as a count of steps (0: never by itself)"
            )

    def weight(self, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Count valid pixels that patches share."""
        return shared_pixels(batch)

    def sum(self, prediction: Prediction, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Sum the augmented Lagrangian over all overlaps, scalar float64."""
        result = zero_of(prediction)
        for seen in self._seen(prediction, batch):
            joint = self._joints.get(seen.key) or self._new(seen)
            multiplier = seen.sign * joint.multiplier.to(seen.difference)
            result = result + total((multiplier + joint.penalty / 2 * seen.difference) * seen.difference, seen.chosen)
        return result

    def after_step(self, prediction: Prediction, batch: PatchBatch) -> None:
        """Count the step for the overlaps in ``batch``; one `update` of those whose count is ``every``."""
        for seen in self._seen(prediction, batch) if self.every else ():
            joint = self._joints.setdefault(seen.key, self._new(seen))
            joint.visits += 1
            if joint.visits >= self.every:
                self._ascend(joint, seen)

    def update(self, prediction: Prediction, batch: PatchBatch) -> None:
        """Take one step of the multipliers and penalties of the overlaps in ``batch``."""
        for seen in self._seen(prediction, batch):
            self._ascend(self._joints.setdefault(seen.key, self._new(seen)), seen)

    def multipliers(self) -> dict[Key, Tensor]:
        """Copy multipliers (h, w) by stack, places of either patch, place and size of the overlap."""
        return {key: joint.multiplier.clone() for key, joint in self._joints.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return tensors alone: ``keys`` (M, 9), ``schedule`` (M, 3: penalty, last RMS, visits), ``multipliers`` (all in one
        row)."""
        joints = list(self._joints.values())
        rows = [[joint.penalty, joint.rms, joint.visits] for joint in joints]
        flat = [joint.multiplier.flatten() for joint in joints]
        return {
            "keys": torch.tensor(list(self._joints), dtype=torch.int64).reshape(-1, 9),
            "schedule": torch.tensor(rows, dtype=torch.float64).reshape(-1, 3),
            "multipliers": torch.cat(flat) if flat else torch.zeros(0),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up what `state_dict` gave; InputError where the parts do not belong together."""
        keys = [tuple(row) for row in state["keys"].tolist()]
        sizes = [key[-2] * key[-1] for key in keys]
        if len(state["schedule"]) != len(keys) or len(state["multipliers"]) != sum(sizes):
            raise InputError(
                f"multipliers of {len(keys)} overlaps with {sum(sizes)} pixels, found {len(state['multipliers'])} values: "
                "the checkpoint is damaged, start anew"
            )
        parts = state["multipliers"].detach().cpu().split(sizes)
        self._joints = {}
        for key, part, (penalty, rms, visits) in zip(keys, parts, state["schedule"].tolist(), strict=True):
            self._joints[key] = _Joint(part.reshape(key[-2:]).clone(), penalty, rms, int(visits))

    def _seen(self, prediction: Prediction, batch: PatchBatch) -> Iterator[_Seen]:
        for at in overlaps(batch):
            key, sign = _key(batch, at)
            yield _Seen(key, sign, disagreement(prediction, batch, at), shared(batch, at))

    def _new(self, seen: _Seen) -> _Joint:
        return _Joint(torch.zeros(seen.chosen.shape), self.penalty)

    def _ascend(self, joint: _Joint, seen: _Seen) -> None:
        difference = seen.sign * seen.difference.detach().float().cpu()
        rms = float((difference.square().sum() / seen.chosen.sum().cpu().clamp_min(1)).sqrt())
        if not math.isfinite(rms):
            return  # a diverged model is rolled back; its multipliers must not be spoilt meanwhile
        joint.multiplier += joint.penalty * difference
        if rms > self.shrink * joint.rms:
            joint.penalty = min(self.growth * joint.penalty, self.most)
        joint.rms, joint.visits = rms, 0


def _key(batch: PatchBatch, at: Overlap) -> tuple[Key, float]:
    """Name the place of an overlap, whichever patch comes first, and 1 or -1 for the order."""
    first, second = (tuple(int(value) for value in batch.place[number]) for number in (at.i, at.j))
    size = tuple(window.stop - window.start for window in at.window_i)
    window, sign = at.window_i, 1.0
    if second < first:
        first, second, window, sign = second, first, at.window_j, -1.0
    corner = (window[0].start + first[1], window[1].start + first[2])
    return (first[0], *first[1:], *second[1:], *corner, *size), sign
