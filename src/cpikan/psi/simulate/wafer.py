"""The wafer: a disc with a notch, and the dies on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.simulate.random import generator
from cpikan.psi.simulate.settings import SurfaceSettings

_DIES = 21
_EDGE_EXCLUSION_MM = 3.0
_MIN_NOTCH_PX = 3.0
_MIN_STREET_PX = 2.0
GOOD, OUTSIDE, PARTICLE = 0, 1, 2  # classes of pixels


@dataclass(frozen=True)
class Grid:
    """Places of the pixels: ``x_mm`` (W,) and ``y_mm`` (H,) from the centre, ``pixel_mm`` apart.

    ``radius_mm`` is the largest distance from the centre that is seen, ``inner_mm`` the largest whole circle.
    """

    x_mm: np.ndarray
    y_mm: np.ndarray
    pixel_mm: float
    radius_mm: float
    inner_mm: float

    @classmethod
    def of(cls, shape: tuple[int, int], pixel_um: float, surface: SurfaceSettings) -> Grid:
        """Lay (H, W) pixels of ``pixel_um`` over the wafer, centre on centre."""
        pixel_mm = pixel_um / 1e3
        y, x = ((np.arange(n) - (n - 1) / 2) * pixel_mm for n in shape)
        radius = float(np.hypot(shape[0], shape[1])) * pixel_mm / 2
        inner = min(shape) * pixel_mm / 2
        if surface.disc:
            radius, inner = min(radius, surface.diameter_mm / 2), min(inner, surface.diameter_mm / 2)
        return cls(x, y, pixel_mm, radius, inner)


class Dies(NamedTuple):
    """The dies of a wafer as tables: block of a row or column (-1: street), which die, and the steps in nm."""

    row_block: np.ndarray
    column_block: np.ndarray
    row_die: np.ndarray
    column_die: np.ndarray
    present: np.ndarray
    step_nm: np.ndarray

    @classmethod
    def draw(cls, surface: SurfaceSettings, grid: Grid, seed: int) -> Dies:
        """Cut every die into the same seeded blocks; only dies that lie wholly on the wafer are present."""
        draw = generator(seed, _DIES)
        axes = []
        for position_mm, pitch_mm in ((grid.y_mm, surface.die_mm[1]), (grid.x_mm, surface.die_mm[0])):
            shift = 0.5 * int(draw.integers(2))
            cuts = np.sort(draw.uniform(0.12, 0.88, int(draw.integers(3, 6))))
            axes.append(
                _cut(position_mm, pitch_mm, shift, cuts, max(surface.street_mm, _MIN_STREET_PX * grid.pixel_mm))
            )
        (row_block, row_die, tops), (column_block, column_die, lefts) = axes
        blocks = (int(row_block.max()) + 1, int(column_block.max()) + 1)
        steps = draw.integers(0, surface.die_levels + 1, (8, 8))[: max(blocks[0], 1), : max(blocks[1], 1)]
        far_y = np.maximum(abs(tops), abs(tops + surface.die_mm[1]))
        far_x = np.maximum(abs(lefts), abs(lefts + surface.die_mm[0]))
        limit = surface.diameter_mm / 2 - _EDGE_EXCLUSION_MM
        present = np.hypot(far_y[:, None], far_x[None, :]) <= (limit if surface.disc else np.inf)
        step_nm = (-surface.die_step_nm * steps).astype(np.float32)
        return cls(row_block, column_block, row_die, column_die, present, step_nm)

    def add(self, height: np.ndarray, start: int) -> None:
        """Add the steps to rows [start, start + n) of a height in nm."""
        _add_dies(height, start, self)


def _cut(
    position_mm: np.ndarray, pitch_mm: float, shift: float, cuts: np.ndarray, street_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find block and die of each position, and where each die begins in mm."""
    turns = position_mm / pitch_mm + shift
    index = np.floor(turns).astype(np.int64)
    inside = (turns - index) * pitch_mm
    block = np.searchsorted(cuts * pitch_mm, inside).astype(np.int16)
    block[(inside < street_mm / 2) | (inside > pitch_mm - street_mm / 2)] = -1
    first = int(index.min())
    begins = (np.arange(first, int(index.max()) + 1) - shift) * pitch_mm
    return block, (index - first).astype(np.int32), begins


@compiled
def _add_dies(height: np.ndarray, start: int, dies: Dies) -> None:
    for r in range(height.shape[0]):
        block = dies.row_block[start + r]
        if block < 0:
            continue
        die = dies.row_die[start + r]
        for x in range(height.shape[1]):
            column = dies.column_block[x]
            if column >= 0 and dies.present[die, dies.column_die[x]]:
                height[r, x] += dies.step_nm[block, column]


def cut_disc(height: np.ndarray, kind: np.ndarray, start: int, grid: Grid, surface: SurfaceSettings) -> None:
    """Set rows [start, start + n) to NaN and ``OUTSIDE`` beyond the disc and in the 90 degree notch at its bottom."""
    notch_mm = max(surface.notch_mm, _MIN_NOTCH_PX * grid.pixel_mm) if surface.notch_mm else 0.0
    _cut_disc(height, kind, start, grid.x_mm, grid.y_mm, surface.diameter_mm / 2, notch_mm)


@compiled
def _cut_disc(
    height: np.ndarray,
    kind: np.ndarray,
    start: int,
    x_mm: np.ndarray,
    y_mm: np.ndarray,
    radius_mm: float,
    notch_mm: float,
) -> None:
    for r in range(height.shape[0]):
        y = y_mm[start + r]
        chord = radius_mm * radius_mm - y * y
        notch = y - (radius_mm - notch_mm)  # half the width of the notch here, when positive
        for x in range(height.shape[1]):
            if x_mm[x] * x_mm[x] > chord or abs(x_mm[x]) < notch:
                height[r, x] = np.nan
                kind[r, x] = 1  # OUTSIDE
