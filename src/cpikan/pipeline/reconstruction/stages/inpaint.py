"""In-painting: heights guessed in the holes of the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cpikan.pipeline.reconstruction.arrays import Arrays
from cpikan.pipeline.reconstruction.formed import FormedMap
from cpikan.pipeline.reconstruction.holes import fill_holes
from cpikan.pipeline.reconstruction.stage import Context, Stage
from cpikan.streaming.engine import Band


@dataclass(frozen=True)
class Inpaint(Stage):
    """Fills the holes of the finished map in an array of guesses of its own."""

    name: ClassVar[str] = "inpaint"
    clock: ClassVar[str] = "refine"
    once: ClassVar[bool] = True
    writes: tuple[str, ...] = ("guess_nm",)

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Guess, and count the holes."""
        formed = FormedMap.of(arrays, context)

        def rows(band: Band) -> tuple[np.ndarray, np.ndarray | None]:
            parts = formed.heights(band)
            return parts["height_nm"], parts.get("component")

        return {"inpainting": fill_holes(rows, list(formed.sweep()), arrays.of(self, "guess_nm"))}
