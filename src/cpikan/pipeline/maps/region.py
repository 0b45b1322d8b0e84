"""Which pixels of a map count: those of a mask, inside a circle or an annulus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.pipeline.stacks.mask import Circle, Mask
from cpikan.streaming.bands import Band
from cpikan.surface.pupil import Pupil


@dataclass(frozen=True)
class Region:
    """Pixels inside ``pupil`` where ``mask`` lets them in; None does not limit."""

    pupil: Pupil | None = None
    mask: Mask | None = None

    def check(self, shape: tuple[int, int]) -> None:
        """Raise InputError when a part does not fit a map (H, W) or lets no pixel of it in."""
        if self.mask is not None:
            self.mask.check(shape)
        if self.pupil is not None:
            Circle(self.pupil.x, self.pupil.y, self.pupil.radius, self.pupil.inner).check(shape)

    def cut(self, band: Band, heights: NDArray[np.floating]) -> None:
        """Put NaN where pixels of a band (..., rows, W) do not count, in place."""
        width = heights.shape[-1]
        if self.mask is not None:
            np.copyto(heights, np.nan, where=self.mask.rows(band.start, band.stop, width) == 0)
        if self.pupil is not None:
            np.copyto(heights, np.nan, where=~self.pupil.inside(band.start, band.stop, width))
