"""What a refiner is given and what it gives: phases of a tile, and a surface with the trust it deserves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

BLOCK_PX = 8  # side of the blocks that coarse heights stand for
CELL_PX = 64  # side of the cells on which methods are chosen, whatever the tiles


class TurnRows(NamedTuple):
    """Demodulated rows of an image, halo included; ``rows`` x W pixels, L wavelengths, the anchor (shortest) first.

    ``turns`` (L, rows, W): wrapped phases in turns, pistons and tilts between wavelengths removed; ``weight``: their
    inverse variances, turns^-2; ``order``: the order of the anchor that the pixel alone prefers, ``best`` and ``second``
    chi squared of that order and of its runner-up; ``height_nm``, ``sigma_nm``, ``modulation`` (DN) and ``flags`` (uint8) are
    those of the pixel pass, bit for bit. All but the flags are float32.
    """

    turns: np.ndarray
    weight: np.ndarray
    order: np.ndarray
    best: np.ndarray
    second: np.ndarray
    height_nm: np.ndarray
    sigma_nm: np.ndarray
    modulation: np.ndarray
    flags: np.ndarray

    def part(self, start: int, stop: int) -> TurnRows:
        """Rows [start, stop), views."""
        return TurnRows(*(array[..., start:stop, :] for array in self))


def empty_turns(wavelengths: int, rows: int, width: int, empty: Callable[..., np.ndarray] = np.empty) -> TurnRows:
    """Buffers for ``rows`` x ``width`` pixels, made by ``empty(shape, dtype)``."""
    single, byte = np.dtype(np.float32), np.dtype(np.uint8)
    turns, weight = (empty((wavelengths, rows, width), single) for _ in range(2))
    order, best, second, height, sigma, modulation = (empty((rows, width), single) for _ in range(6))
    return TurnRows(turns, weight, order, best, second, height, sigma, modulation, empty((rows, width), byte))


class SurfaceRows(NamedTuple):
    """A surface on pixels: ``height_nm`` and its standard uncertainty ``sigma_nm`` (rows, W) float32.

    The sigma includes how far a pixel may rightly lie from the surface; it is infinite where the surface knows nothing.
    """

    height_nm: np.ndarray
    sigma_nm: np.ndarray


@runtime_checkable
class Refiner(Protocol):
    """Anything that draws a surface through the phases of a part of the image: a fitted field, or a learned model.

    ``halo`` pixels around what is asked for are given along; the answer must not depend on more than that, so that tiles
    change no bit.
    """

    @property
    def halo(self) -> int: ...

    def surface(self, rows: TurnRows, first_row: int, keep: slice) -> SurfaceRows:
        """The surface on the rows ``keep`` of ``rows``, whose first is image row ``first_row``."""
        ...


class NoSurface:
    """A refiner that knows nothing: neighbours alone decide."""

    halo = 0

    def surface(self, rows: TurnRows, first_row: int, keep: slice) -> SurfaceRows:
        """No height, infinite sigma."""
        shape = (keep.stop - keep.start, rows.flags.shape[1])
        return SurfaceRows(np.full(shape, np.nan, np.float32), np.full(shape, np.inf, np.float32))
