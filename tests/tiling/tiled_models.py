"""Models on tiles with known answers, importable by other processes."""

from __future__ import annotations

import time

import numpy as np

from cpikan.streaming.tiling.model import TileFunction


def same(tiles):
    return tiles


def two_boxes(tiles):
    """Two 5 x 5 box filters in a row with zeros outside, in float64 so that rounding is far below float32."""
    values = tiles.astype(np.float64)
    for _ in range(2):
        padded = np.pad(values, ((0, 0), (0, 0), (2, 2), (2, 2)))
        height, width = values.shape[-2:]
        values = sum(padded[..., i : i + height, j : j + width] for i in range(5) for j in range(5)) / 25
    return values.astype(np.float32)


def blocks(tiles):
    """The mean of each block of 4 x 4 pixels, as a network that halves its grid twice would see it."""
    n, c, height, width = tiles.shape
    means = tiles.reshape(n, c, height // 4, 4, width // 4, 4).mean(axis=(3, 5), dtype=np.float64)
    return means.repeat(4, axis=2).repeat(4, axis=3).astype(np.float32)


def piston(tiles):
    """Each tile without its mean: depends on the whole tile."""
    return (tiles - tiles.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)).astype(np.float32)


def twice_and_sum(tiles):
    """Two channels: the first one doubled, and the sum of all."""
    return np.stack([2 * tiles[:, 0], tiles.sum(axis=1)], axis=1)


def slow_piston(tiles):
    time.sleep(0.01 * len(tiles))
    return piston(tiles)


IDENTITY = TileFunction(same, receptive_field_px=1)
BOXES = TileFunction(two_boxes, receptive_field_px=9)  # 5 + 4
BLOCKS = TileFunction(blocks, receptive_field_px=7, multiple_px=4)  # 3 pixels to either side at most
PISTON = TileFunction(piston)
SLOW = TileFunction(slow_piston, batch=2)
PAIR = TileFunction(twice_and_sum, receptive_field_px=1, channels_in=3, channels_out=2)


class Numbered:
    """Adds to each tile the number of the process that runs it; 0 where no process was told one."""

    receptive_field_px, multiple_px, batch = 1, 1, 1
    channels_in = channels_out = None

    def __init__(self) -> None:
        self.number = 0

    def for_process(self, number):
        self.number = number
        return self

    def __call__(self, tiles):
        time.sleep(0.02)  # so that no process has done all rows before the other is there
        return tiles + np.float32(self.number)
