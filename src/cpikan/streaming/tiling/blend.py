"""Blending by ramps, along rows of tiles and then between them: no weight map, no division, no image in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError, check_name, check_type
from cpikan.masked import without_mask
from cpikan.partition import Box, Partition


@dataclass
class Disagreement:
    """Sums over all pixels where two tiles meet; ``period`` makes differences those of values on a circle.

    With ``orders_agree`` a difference of more than half a period is refused: an average of two orders is no height.
    """

    period: float | None = None
    orders_agree: bool = False
    squares: float = 0.0
    reference: float = 0.0
    largest: float = 0.0
    pixels: int = 0

    def add(self, old: np.ndarray, step: np.ndarray) -> None:
        """Count ``step`` = new - old, where the earlier tile has ``old``; pixels without a value do not count."""
        size = float(np.abs(step).max(initial=0.0))
        if not math.isfinite(size):
            there = np.isfinite(step)
            old, step = old[there], step[there]
            size = float(np.abs(step).max(initial=0.0))
        if self.period is not None and size > 0.5 * self.period:
            if self.orders_agree:
                raise InputError(
                    f"heights of neighbouring tiles differ by {size:.6g}, more than half of the period {self.period:g}: "
                    "make their orders agree first, blend phasors, or use window 'halo'"
                )
            step = step - self.period * np.rint(step / self.period)
            size = float(np.abs(step).max(initial=0.0))
        self.largest = max(self.largest, size)
        if size > 0.0:  # tiles that agree everywhere are the common case of exact tilings
            self.squares += float(np.square(step).sum(dtype=np.float64))
        self.reference += float(np.square(old).sum(dtype=np.float64))
        self.pixels += step.size

    def merge(self, other: Disagreement) -> None:
        """Add the sums of another part of the image."""
        self.squares += other.squares
        self.reference += other.reference
        self.largest = max(self.largest, other.largest)
        self.pixels += other.pixels

    @property
    def relative_l2(self) -> float | None:
        """Divide the RMS difference by the RMS of the values; None where no tiles meet."""
        if not self.pixels:
            return None
        return math.sqrt(self.squares / self.reference) if self.reference else (0.0 if not self.squares else math.inf)

    @property
    def rms(self) -> float | None:
        """Compute the RMS difference, in the unit of the values; None where no tiles meet."""
        return math.sqrt(self.squares / self.pixels) if self.pixels else None


WINDOWS = ("halo", "hann", "hamming", "smooth")


def tile_image(
    array: np.ndarray, tile: int | Sequence[int], overlap: int | Sequence[int]
) -> tuple[list[np.ndarray], Partition[int]]:
    """Cut an array (..., H, W) into views of equal shape (..., h, w) and the partition that ``blend_tiles`` takes.

    Every pixel is in a tile: starts are spread evenly, the last tile ends with the image, and an image smaller than a
    tile is one tile. ``tile`` and ``overlap`` are pixels, one number or (rows, columns). Nothing is copied, also of a
    memory map. Raises InputError for an overlap that is not below the tile, and arrays without pixels.
    """
    check_type("array", array, np.ndarray, "an array (H, W) or (C, H, W)")
    if array.ndim < 2 or min(array.shape) < 1:
        raise InputError(f"an array of shape {array.shape} is no image: give (H, W) or (C, H, W)")
    partition = Partition.tiles(array.shape[-2:], tile, overlap)
    return [box.view(array) for box in partition], partition


def blend_tiles(tiles: Iterable[np.ndarray], partition: Partition[int], window: str = "hann") -> np.ndarray:
    """Put tiles (..., h, w), in the order of their partition, back into one array (..., H, W).

    ``tiles`` may be a generator: each is let go of once it is placed. ``window`` is ``hann``, ``hamming``, ``smooth`` or
    ``halo`` (each pixel from the tile that owns it). Blends work in float32, or in float64 or complex numbers where the
    tiles do; ``halo`` keeps the type. Blend phasors or heights whose orders agree, never wrapped phase. Raises
    InputError for an unknown window, too few or too many tiles, and tiles of another shape.
    """
    check_type("partition", partition, Partition, "that of tile_image")
    check_name("window", window, WINDOWS)
    shape = partition.shape[0], partition.shape[1]
    blender, whole, carry = Blender(partition, shape, window), None, None
    source = iter(tiles)
    for box in partition:
        values = next(source, None)
        if values is None:
            raise InputError(
                f"{box.index} tiles were given for a partition of {len(partition)}: give every tile once, in order"
            )
        values = np.asarray(without_mask(values))
        if values.shape[-2:] != box.shape or (whole is not None and values.shape[:-2] != whole.shape[:-2]):
            raise InputError(
                f"tile {box.index} has the shape {values.shape}: it must end in {box.shape}, as in the partition"
            )
        if whole is None:
            dtype = values.dtype if window == "halo" else np.result_type(values.dtype, np.float32)
            whole = np.empty((*values.shape[:-2], *shape), dtype)
        i, j = box.position
        top, bottom = blender.rows_of(i)
        blender.across(box, values, whole[..., top:bottom, :])
        if j == partition.counts[1] - 1:
            carry = blender.down(i, carry, whole[..., top:bottom, :])[1]
    if next(source, None) is not None:
        raise InputError(
            f"more than {len(partition)} tiles were given for this partition: give every tile once, in order"
        )
    assert whole is not None
    return whole


class Blender:
    """Joins the tiles of an image of ``shape`` (H, W), which its partition may exceed.

    Separable windows are differences of ramps, and so

        sum_i w_i u_i = u_0 + sum_i ramp_i (u_i - u_(i-1)):

    where neighbours agree the result is exactly their value, up to the rim. ``halo`` takes each pixel from the tile
    whose core holds it, bit for bit. ``disagreement`` counts how far neighbours differ where they meet. The order of
    the sums is that of the tiles, whatever the batches and processes.
    """

    def __init__(
        self,
        partition: Partition[int],
        shape: tuple[int, int],
        window: str,
        disagreement: Disagreement | None = None,
    ) -> None:
        self.disagreement = disagreement
        self._rows, self._columns = partition.axes
        self._shape = shape
        self._halo = window == "halo"
        self._weights = tuple(rising(window, axis.ramp) for axis in partition.axes)

    def rows_of(self, i: int) -> tuple[int, int]:
        """Return the image rows [top, bottom) to which row i of tiles gives weight."""
        top, bottom = self._rows.support(i)
        return top, min(bottom, self._shape[0])

    def across(self, box: Box[int], values: np.ndarray, band: np.ndarray) -> None:
        """Put one tile (..., h, w) into ``band`` (..., rows of its row of tiles, W); tiles come from left to right."""
        top, bottom = self.rows_of(box.position[0])
        j = box.position[1]
        start, stop = self._columns.support(j)
        stop = min(stop, self._shape[1])
        first_row, first = box.extent[0][0], box.extent[1][0]
        tile = values[..., top - first_row : bottom - first_row, start - first : stop - first]
        shared = self._columns.ramp if j else 0
        band[..., start + shared : stop] = tile[..., shared:]
        if shared:
            self._join(band[..., start : start + shared], tile[..., :shared], 1)

    def down(self, i: int, carry: np.ndarray | None, band: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Blend a band with the last rows of the band above (``carry``): gives the finished rows and the next carry.

        Without a carry the upper ramp stays as it is: on the first band, and where only the next carry is wanted.
        """
        rows = self._rows
        if carry is not None:
            self._join(carry, band[..., : rows.ramp, :], 0)
            band[..., : rows.ramp, :] = carry
        if i == len(rows) - 1:
            return band, None
        done = rows.ramps[i] - self.rows_of(i)[0]
        return band[..., :done, :], band[..., done:, :].copy() if rows.ramp else None

    def _join(self, old: np.ndarray, new: np.ndarray, axis: int) -> None:
        """Let ``old`` hand over to ``new`` along the ramp, in place."""
        weights = self._weights[axis]
        with np.errstate(invalid="ignore"):  # infinite values have no difference
            if self.disagreement is not None:
                self.disagreement.add(old, np.subtract(new, old, dtype=old.dtype))
            if self._halo:
                half = len(weights) // 2
                cut = np.s_[..., half:, :] if axis == 0 else np.s_[..., half:]
                old[cut] = new[cut]
                return
            step = np.subtract(new, old, dtype=old.dtype)
            step *= (weights if axis else weights[:, None]).astype(old.real.dtype)
            old += step


def rising(window: str, length: int) -> np.ndarray:
    """Compute the weight of the later tile over a ramp, (length,) float64; the earlier one has the rest.

    Samples sit at half pixels, t = (k + 1/2) / length, so no weight is zero and the ramp is its own mirror image:
    ``hann`` sin^2(pi t / 2); ``hamming`` (0.54 - 0.46 cos(pi t)) / 1.08, which jumps by 7.4 % at both ends as that
    window does; ``smooth`` 6 t^5 - 15 t^4 + 10 t^3 (C2, Perlin 2002); ``halo`` a step in the middle.
    """
    t = (np.arange(length) + 0.5) / max(length, 1)
    if window == "hann":
        return np.sin(0.5 * np.pi * t) ** 2
    if window == "hamming":
        return (0.54 - 0.46 * np.cos(np.pi * t)) / 1.08
    if window == "smooth":
        return t**3 * (10.0 + t * (6.0 * t - 15.0))
    return (np.arange(length) >= length // 2).astype(float)
