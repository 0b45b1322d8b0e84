"""What a tiled run is asked to do, and its plan: what may be blended, how long the ramps may be, what is exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cpikan.errors import InputError, check_name, check_names
from cpikan.partition import Intervals, Partition
from cpikan.partition.partition import per_axis
from cpikan.streaming.events import Events
from cpikan.streaming.tiling.blend import WINDOWS, Blender, Disagreement
from cpikan.streaming.tiling.model import TileModel, channels_between

VALUES = ("linear", "phasor", "height", "wrapped")
# what a setting affects that does not change the pixels of the output
_SPEED, _FILES, _TOLD = ({"affects": what} for what in ("speed", "files", "what is told"))
Pair = int | Sequence[int]


@dataclass(frozen=True)
class TilingSettings:
    """How an image is cut, blended and run; lengths in pixels, one number or (rows, columns).

    ``window`` is ``auto``, ``halo`` (each pixel from the tile that owns it), ``hann``, ``hamming`` or ``smooth`` (C2).
    ``ramp`` is the length of the blend inside the overlap; by default as long as the model's receptive field allows.
    ``values`` says what the model returns: ``linear`` quantities, ``phasor`` (pairs of channels cos, sin), ``height``
    (orders must agree: with ``period``, half a wavelength in the unit of the values, this is checked), or ``wrapped``
    phase, which only ``halo`` can join. ``quantities`` names the output's channels as maps of this package. ``progress`` is a
    line on stderr, or Events that are told.
    """

    tile: Pair = 512
    overlap: Pair = 64
    window: str = "auto"
    ramp: Pair | None = None
    values: str = "linear"
    period: float | None = None
    batch: int | None = field(default=None, metadata=_SPEED)
    processes: int = field(default=1, metadata=_SPEED)
    threads: int | None = field(default=None, metadata=_SPEED)
    quantities: tuple[str, ...] | None = None
    resume: bool = field(default=False, metadata=_FILES)
    overwrite: bool = field(default=False, metadata=_FILES)
    progress: bool | Events = field(default=False, metadata=_TOLD)

    def __post_init__(self) -> None:
        for name, least in (("tile", 1), ("overlap", 0)):
            per_axis(getattr(self, name), 2, name, least)
        check_name("window", self.window, ("auto", *WINDOWS))
        check_name("kind of values", self.values, VALUES)
        if self.period is not None and not 0 < self.period < float("inf"):
            raise InputError(
                f"period {self.period} is no length: give a positive number, such as 316.4 (half of 632.8 nm)"
            )
        if self.resume and self.overwrite:
            raise InputError("resume and overwrite exclude each other: continue the old run, or begin anew")
        for name in ("batch", "processes", "threads"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or number < 1):
                raise InputError(f"{name} {number!r} is not a count: give 1 or more")

    def changed(self, options: dict[str, Any]) -> TilingSettings:
        """Copy the settings with some replaced; raises InputError for an unknown name, with the nearest one."""
        names = [entry.name for entry in fields(self)]
        check_names("option", options, names)
        return replace(self, **options)


_SEAM_PX = 8  # where nothing is blended, tiles are compared on so many pixels around each cut


@dataclass(frozen=True)
class TilePlan:
    """What is the same for all rows of tiles of a run, an image of ``shape`` (H, W); it travels to other processes."""

    shape: tuple[int, int]
    partition: Partition[int]
    window: str
    channels_in: int
    channels_out: int
    batch: int
    finite: bool
    period: float | None
    orders_agree: bool

    @property
    def rows(self) -> Intervals[int]:
        """Return the partition from top to bottom; it may reach beyond the image."""
        return self.partition.axes[0]

    @property
    def columns(self) -> Intervals[int]:
        """Return the partition from left to right; it may reach beyond the image."""
        return self.partition.axes[1]

    @property
    def tile(self) -> tuple[int, int]:
        """Return the rows and columns of every tile."""
        return self.rows.stops[0], self.columns.stops[0]

    @property
    def emitted(self) -> tuple[int, ...]:
        """Return the bounds of finished image rows: row i of tiles finishes [emitted[i], emitted[i + 1])."""
        return (0, *self.rows.ramps, self.shape[0])

    def blender(self) -> Blender:
        """Make a blender that counts the disagreement of its own joints."""
        return Blender(self.partition, self.shape, self.window, Disagreement(self.period, self.orders_agree))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return the shape (C, tile rows, W) of the image rows under one row of tiles."""
        return self.channels_in, self.tile[0], self.shape[1]

    @property
    def band_shape(self) -> tuple[int, int, int]:
        """Return the shape (C', rows, W) of the largest band a row of tiles gives."""
        rows = max(bottom - top for top, bottom in map(self.rows.support, range(len(self.rows))))
        return self.channels_out, min(rows, self.shape[0]), self.shape[1]


def plan_tiles(model: TileModel, shape: tuple[int, int, int], settings: TilingSettings) -> TilePlan:
    """Check the settings against the model and the image (C, H, W), and lay out the tiles.

    A pixel of a finite receptive field is exact where the tile shows all that it sees; ramps are kept inside that zone,
    so that the tiled result is the untiled one. Raises InputError for an overlap or a ramp that leaves no such zone, for
    wrapped phases that would be blended, and for channels that do not fit.
    """
    window = _window(model, settings)
    channels = channels_between(model, shape[0])
    _check_channels(channels, settings)
    tile, overlap = per_axis(settings.tile, 2, "tile", 1), per_axis(settings.overlap, 2, "overlap", 0)
    seen = 0 if model.receptive_field_px == "global" else 2 * (model.receptive_field_px // 2)
    for width, length in zip(overlap, tile, strict=True):
        if width < seen and width < length:
            raise InputError(
                f"overlap {width} is smaller than the model's receptive field of {model.receptive_field_px} pixels: give "
                f"{seen} or more"
            )
    free = tuple(width - seen for width in overlap)
    ramp = _ramp(settings, window, free, tile)
    partition = Partition.tiles(shape[1:], tile, overlap, ramp=ramp, multiple=model.multiple_px)
    period = settings.period or (2 * math.pi if settings.values == "wrapped" else None)
    agree = settings.values == "height" and settings.period is not None and window != "halo"
    finite = model.receptive_field_px != "global"
    batch = settings.batch or model.batch
    return TilePlan(shape[1:], partition, window, shape[0], channels, batch, finite, period, agree)


def describe(plan: TilePlan, model: TileModel, settings: TilingSettings) -> dict[str, Any]:
    """Describe what decides the pixels of the output: a run is resumed with the same only."""
    return {
        "shape": [plan.channels_in, *plan.shape],
        "channels": plan.channels_out,
        "tile": list(plan.tile),
        "tiles": list(plan.partition.counts),
        "multiple": model.multiple_px,
        "ramp": [plan.rows.ramp, plan.columns.ramp],
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


def _ramp(settings: TilingSettings, window: str, free: tuple[int, ...], tile: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the ramp in pixels on both axes; where nothing is blended the few pixels on which tiles are compared."""
    if settings.ramp is not None and window != "halo":
        ramps = per_axis(settings.ramp, 2, "ramp", 0)
        for ramp, room in zip(ramps, free, strict=True):
            if ramp > room:
                raise InputError(
                    f"ramp {ramp} is longer than the {room} pixels of the overlap where both tiles see enough: give at "
                    f"most {max(room, 0)}, or a larger overlap"
                )
        return ramps
    longest = _SEAM_PX if window == "halo" else max(tile)
    return tuple(max(min(room, length // 2, longest), 0) for room, length in zip(free, tile, strict=True))
