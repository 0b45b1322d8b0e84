"""What a refiner is given and what it gives: phases of a tile, and a surface with the trust it deserves."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from cpikan.psi.kernels.model import DemodulatedRows

BLOCK_PX = 8  # side of the blocks that coarse heights stand for
CELL_PX = 64  # side of the cells on which methods are chosen, whatever the tiles


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

    def surface(self, rows: DemodulatedRows, first_row: int, keep: slice) -> SurfaceRows:
        """Estimate the surface on the rows ``keep`` of ``rows``, whose first is image row ``first_row``."""
        ...


class NoSurface:
    """A refiner that knows nothing: neighbours alone decide."""

    halo = 0

    def surface(self, rows: DemodulatedRows, first_row: int, keep: slice) -> SurfaceRows:
        """Give no height and infinite sigma."""
        shape = (keep.stop - keep.start, rows.flags.shape[1])
        return SurfaceRows(np.full(shape, np.nan, np.float32), np.full(shape, np.inf, np.float32))
