"""Disagreement of neighbouring patches where they overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from cpikan.images.batch import PatchBatch
from cpikan.images.features import Prediction
from cpikan.images.losses.base import zero_of


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
