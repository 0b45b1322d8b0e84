"""What a file of bare pixels holds: nothing in it says so, a line of acquisition.toml does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cpikan.errors import InputError, check_name, check_names
from cpikan.storage.headers import MAX_FRAME_PIXELS, check_frame_size

EXAMPLE = 'raw = {pixel = "Mono12Packed", width = 9344, height = 7000}'
_MOST_BYTES = 2**40


@dataclass(frozen=True)
class PixelFormat:
    """A pixel format of GenICam (PFNC): the ``bits`` that count, and how many ``pixels`` lie in how many ``bytes``."""

    bits: int
    pixels: int
    bytes: int

    @property
    def packed(self) -> bool:
        return self.pixels > 1


PIXELS: dict[str, PixelFormat] = {
    "Mono8": PixelFormat(8, 1, 1),
    "Mono10": PixelFormat(10, 1, 2),
    "Mono12": PixelFormat(12, 1, 2),
    "Mono14": PixelFormat(14, 1, 2),
    "Mono16": PixelFormat(16, 1, 2),
    "Mono10Packed": PixelFormat(10, 2, 3),
    "Mono12Packed": PixelFormat(12, 2, 3),
    "Mono10p": PixelFormat(10, 4, 5),
    "Mono12p": PixelFormat(12, 2, 3),
}


@dataclass(frozen=True)
class RawLayout:
    """Frames of ``height`` x ``width`` pixels, one after the other.

    ``header`` bytes come before the first frame, ``row_padding`` after each row, ``frame_padding`` after each frame.
    ``justified`` says where the bits lie in two bytes (left: the low ones are zero), ``endian`` which byte is first.
    Raises InputError for a format that is not known, and numbers that cannot be.
    """

    pixel: str
    width: int
    height: int
    header: int = 0
    frame_padding: int = 0
    row_padding: int = 0
    justified: str = "right"
    endian: str = "little"

    def __post_init__(self) -> None:
        check_name("raw pixel format", str(self.pixel), PIXELS)
        check_name("raw justified", str(self.justified), ("right", "left"))
        check_name("raw endian", str(self.endian), ("little", "big"))
        for name in ("width", "height", "header", "frame_padding", "row_padding"):
            value, least = getattr(self, name), int(name in ("width", "height"))
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST_BYTES:
                raise InputError(f"raw {name} {value!r} is no whole number from {least} on: write it such as {EXAMPLE}")
        if self.width * self.height > MAX_FRAME_PIXELS:
            check_frame_size("raw", self.height, self.width)
        if self.row_padding and self.width % self.format.pixels:
            raise InputError(
                f"raw row_padding with rows of {self.width} pixels of {self.pixel}: rows that end within a byte are not "
                "padded; give the padding as frame_padding, or the width that the camera sends"
            )

    @property
    def format(self) -> PixelFormat:
        return PIXELS[self.pixel]

    @property
    def row_bytes(self) -> int:
        """Count the bytes from one row to the next, where rows begin with a byte."""
        return self.width * self.format.bytes // self.format.pixels + self.row_padding

    @property
    def frame_bytes(self) -> int:
        """Count the bytes of a frame without what pads it."""
        pixels, size = self.format.pixels, self.format.bytes
        groups = -(-self.width * self.height // pixels)
        whole = groups * size - (groups * pixels - self.width * self.height) * size // pixels
        return whole + self.height * self.row_padding


def parse_raw(value: object) -> RawLayout:
    """Read the layout of bare pixels: a table, or text such as ``"pixel=Mono8,width=640,height=480"``.

    Raises InputError for keys that are not known and for those that lack.
    """
    table: Mapping[str, Any]
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",")]
        table = {key.strip(): _number(text.strip()) for key, sign, text in pairs if sign}
        if len(table) != len(pairs):
            raise InputError(
                f"raw {value!r} is not KEY=VALUE with commas between: write pixel=Mono8,width=640,height=480"
            )
    elif isinstance(value, Mapping):
        table = value
    else:
        raise InputError(f"raw {value!r} is no table: write {EXAMPLE}")
    check_names("key of raw", table, [entry.name for entry in fields(RawLayout)])
    lacking = [name for name in ("pixel", "width", "height") if name not in table]
    if lacking:
        raise InputError(f"raw lacks {' and '.join(lacking)}: write {EXAMPLE}")
    return RawLayout(**table)


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text
