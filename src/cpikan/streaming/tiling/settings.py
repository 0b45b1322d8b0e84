"""What a tiled run is asked to do, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cpikan.errors import InputError, unknown_name
from cpikan.streaming.events import Events
from cpikan.streaming.tiling.blend import WINDOWS

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
        if self.window not in ("auto", *WINDOWS):
            raise unknown_name("window", self.window, ("auto", *WINDOWS))
        if self.values not in VALUES:
            raise unknown_name("kind of values", self.values, VALUES)
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
        for name in options:
            if name not in names:
                raise unknown_name("option", name, names)
        return replace(self, **options)
