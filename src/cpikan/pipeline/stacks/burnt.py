"""What was written into three frames and changes from one to the next, found while their rows are read, and left out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.calibration.samples.burnt_text import SIDE, Usual, burnt_blocks
from cpikan.psi.model.caution import Caution
from cpikan.surface.apertures.aperture import Aperture

_FRAMES = 3  # more contradict themselves where one of them holds text
_BAND_ROWS = 32 * SIDE
_ROWS = 16  # of the whole height, for what is usual
_MOST = 0.2  # of the blocks: text is small, and a picture that looks like text all over is none


@dataclass(frozen=True)
class BurntText:
    """Blocks of ``SIDE`` pixels (rows, columns) that hold text, and those around them."""

    blocks: np.ndarray

    def without(self, mask: Aperture | None) -> Aperture | None:
        """Take the text out of a mask."""
        if not self.blocks.any():
            return mask
        rest = _OutsideBlocks(self.blocks)
        return rest if mask is None else mask & rest

    def caution(self) -> Caution | None:
        """Say where it is; None where there is none."""
        if not self.blocks.any():
            return None
        rows, columns = (SIDE * axis for axis in np.nonzero(self.blocks))
        text = (
            f"something was written into the frames that changes from one to the next, such as a counter (rows {rows.min()} to "
            f"{rows.max() + SIDE - 1}, columns {columns.min()} to {columns.max() + SIDE - 1}): it is left out; switch the "
            "overlay of the camera off"
        )
        return Caution("text-in-frames", text)


class _OutsideBlocks(Aperture):
    """Pixels outside of blocks of ``SIDE`` pixels."""

    def __init__(self, blocks: np.ndarray) -> None:
        self._blocks = blocks

    @property
    def identity(self) -> str:
        return f"outside text {hashlib.sha256(np.packbits(self._blocks).tobytes()).hexdigest()[:16]}"

    def rows(self, start: int, stop: int, width: int) -> UInt8[np.ndarray, "rows w"]:
        place = np.minimum(np.arange(start, stop) // SIDE, len(self._blocks) - 1)
        rows = np.repeat(self._blocks[place], SIDE, axis=1)[:, :width]
        inside = np.ones((stop - start, width), np.uint8)
        inside[:, : rows.shape[1]] = ~rows
        return inside


def find_text(stack: FrameStack) -> BurntText:
    """Look for text in a stack of three frames a wavelength; of more frames there is none to look for."""
    _, steps, height, width = stack.shape
    blocks = np.zeros((-(-height // SIDE), -(-width // SIDE)), bool)
    if steps != _FRAMES:
        return BurntText(blocks)
    places = np.unique(np.linspace(0, height - 1, _ROWS).astype(int))
    usual = Usual.of(np.concatenate([stack.rows(int(row), int(row) + 1) for row in places], axis=2))
    for start in range(0, height - height % SIDE, _BAND_ROWS):
        band = stack.rows(start, min(start + _BAND_ROWS, height - height % SIDE))
        lines = slice(start // SIDE, start // SIDE + band.shape[2] // SIDE)
        for one in band:
            blocks[lines, : width // SIDE] |= burnt_blocks(one, usual)
    if not blocks.any() or blocks.mean() > _MOST:
        return BurntText(np.zeros_like(blocks))
    return BurntText(_boxes(ndimage.binary_dilation(blocks, np.ones((3, 3), bool))))


def _boxes(blocks: np.ndarray) -> np.ndarray:
    """Fill the boxes around what hangs together: text stands in lines, and thin letters leave gaps."""
    filled = np.zeros_like(blocks)
    for box in ndimage.find_objects(ndimage.label(blocks, np.ones((3, 3), int))[0]):
        filled[box] = True
    return filled
