"""Tiles of an array that is at hand, and the array of tiles: for own loops over tiles."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.streaming.tiling.blender import Blender
from cpikan.streaming.tiling.grid import TileGrid, tile_grid
from cpikan.streaming.tiling.ramps import WINDOWS
from cpikan.streaming.tiling.settings import Pair, pair


def tile_image(array: np.ndarray, tile: Pair, overlap: Pair) -> tuple[list[np.ndarray], TileGrid]:
    """Cut an array (..., H, W) into views of equal shape (..., h, w) and the grid that ``blend_tiles`` takes.

    Every pixel is in a tile: starts are spread evenly, the last tile ends with the image, and an image smaller than a
    tile is one tile. ``tile`` and ``overlap`` are pixels, one number or (rows, columns). Nothing is copied, also of a
    memory map. Raises InputError for an overlap that is not below the tile, and arrays without pixels.
    """
    if array.ndim < 2 or min(array.shape) < 1:
        raise InputError(f"an array of shape {array.shape} is no image: give (H, W) or (C, H, W)")
    grid = tile_grid((array.shape[-2], array.shape[-1]), pair(tile, "tile", 1), pair(overlap, "overlap", 0))
    return [box.view(array) for box in grid], grid


def blend_tiles(tiles: Iterable[np.ndarray], grid: TileGrid, window: str = "hann") -> np.ndarray:
    """Put tiles (..., h, w), in the order of the grid, back into one array (..., H, W).

    ``tiles`` may be a generator: each is let go of once it is placed. ``window`` is ``hann``, ``hamming``, ``smooth`` or
    ``halo`` (each pixel from the tile that owns it). Blends work in float32, or in float64 or complex numbers where the
    tiles do; ``halo`` keeps the type. Blend phasors or heights whose orders agree, never wrapped phase. Raises
    InputError for an unknown window, too few or too many tiles, and tiles of another shape.
    """
    if window not in WINDOWS:
        raise unknown_name("window", window, WINDOWS)
    blender, whole, carry = Blender(grid, window), None, None
    boxes, source = list(grid), iter(tiles)
    for box in boxes:
        values = next(source, None)
        if values is None:
            raise InputError(f"{box.index} tiles were given for a grid of {len(boxes)}: give every tile once, in order")
        values = np.asarray(values)
        if values.shape[-2:] != box.shape or (whole is not None and values.shape[:-2] != whole.shape[:-2]):
            raise InputError(
                f"tile {box.index} has the shape {values.shape}: it must end in {box.shape}, as in the grid"
            )
        if whole is None:
            dtype = values.dtype if window == "halo" else np.result_type(values.dtype, np.float32)
            whole = np.empty((*values.shape[:-2], *grid.shape), dtype)
        i, j = box.position
        top, bottom = blender.rows_of(i)
        blender.across(box, values, whole[..., top:bottom, :])
        if j == len(grid.columns) - 1:
            carry = blender.down(i, carry, whole[..., top:bottom, :])[1]
    if next(source, None) is not None:
        raise InputError(f"more than {len(boxes)} tiles were given for this grid: give every tile once, in order")
    assert whole is not None
    return whole
