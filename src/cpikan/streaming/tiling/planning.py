"""From settings and a model to a plan: what may be blended, how long the ramps may be, what is exact."""

from __future__ import annotations

import math
from typing import Any

from cpikan.errors import InputError
from cpikan.streaming.tiling.grid import tile_grid
from cpikan.streaming.tiling.model import TileModel, channels_between
from cpikan.streaming.tiling.rows import TilePlan
from cpikan.streaming.tiling.settings import TilingSettings, pair

_SEAM_PX = 8  # where nothing is blended, tiles are compared on so many pixels around each cut


def plan_tiles(model: TileModel, shape: tuple[int, int, int], settings: TilingSettings) -> TilePlan:
    """Check the settings against the model and the image (C, H, W), and lay out the tiles.

    A pixel of a finite receptive field is exact where the tile shows all that it sees; ramps are kept inside that zone,
    so that the tiled result is the untiled one. Raises InputError for an overlap or a ramp that leaves no such zone, for
    wrapped phases that would be blended, and for channels that do not fit.
    """
    window = _window(model, settings)
    channels = channels_between(model, shape[0])
    _check_channels(channels, settings)
    tile, overlap = pair(settings.tile, "tile", 1), pair(settings.overlap, "overlap", 0)
    seen = 0 if model.receptive_field_px == "global" else 2 * (model.receptive_field_px // 2)
    for width, length in zip(overlap, tile, strict=True):
        if width < seen and width < length:
            raise InputError(
                f"overlap {width} is smaller than the model's receptive field of {model.receptive_field_px} pixels: give "
                f"{seen} or more"
            )
    free = tuple(width - seen for width in overlap)
    ramp = _ramp(settings, window, free, tile)
    grid = tile_grid((shape[1], shape[2]), tile, overlap, ramp=ramp, multiple=model.multiple_px)
    period = settings.period or (2 * math.pi if settings.values == "wrapped" else None)
    agree = settings.values == "height" and settings.period is not None and window != "halo"
    finite = model.receptive_field_px != "global"
    return TilePlan(grid, window, shape[0], channels, settings.batch or model.batch, finite, period, agree)


def describe(plan: TilePlan, settings: TilingSettings) -> dict[str, Any]:
    """What decides the pixels of the output: a run is resumed with the same only."""
    return {
        "shape": [plan.channels_in, *plan.grid.shape],
        "channels": plan.channels_out,
        "tile": list(plan.grid.tile),
        "tiles": list(plan.grid.partition.counts),
        "multiple": plan.grid.multiple,
        "ramp": [plan.grid.rows.ramp, plan.grid.columns.ramp],
        "window": plan.window,
        "values": settings.values,
        "period": plan.period,
        "quantities": list(settings.quantities) if settings.quantities else None,
    }


def _window(model: TileModel, settings: TilingSettings) -> str:
    window = settings.window
    if window == "auto":
        finite = model.receptive_field_px != "global"
        window = "halo" if finite or settings.values == "wrapped" else "hann"
    if settings.values == "wrapped" and window != "halo":
        raise InputError(
            f"wrapped phases cannot be blended with window {window!r}, their average is no phase: give window 'halo', or "
            "let the model return cos and sin (values 'phasor')"
        )
    return window


def _check_channels(channels: int, settings: TilingSettings) -> None:
    if settings.values == "phasor" and channels % 2:
        raise InputError(f"phasors come in pairs of channels (cos, sin), the model returns {channels}: give both")
    names = settings.quantities
    if names is not None and len(names) != channels:
        raise InputError(f"quantities {', '.join(names)} name {len(names)} of {channels} channels: name each of them")


def _ramp(
    settings: TilingSettings, window: str, free: tuple[int, ...], tile: tuple[int, int]
) -> tuple[int, int] | None:
    """The ramp on both axes; where nothing is blended the few pixels on which tiles are compared."""
    if settings.ramp is not None and window != "halo":
        ramps = pair(settings.ramp, "ramp", 0)
        for ramp, room in zip(ramps, free, strict=True):
            if ramp > room:
                raise InputError(
                    f"ramp {ramp} is longer than the {room} pixels of the overlap where both tiles see enough: give at "
                    f"most {max(room, 0)}, or a larger overlap"
                )
        return ramps
    limits = [min(room, length // 2) for room, length in zip(free, tile, strict=True)]
    ramps = (max(limits[0], 0), max(limits[1], 0))
    return (min(ramps[0], _SEAM_PX), min(ramps[1], _SEAM_PX)) if window == "halo" else ramps
