"""Portable grey maps (PGM, Netpbm): plain text (P2) or bytes (P5), of 8 or 16 bits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_frame_size, check_raw_size, decoding

_HEAD_BYTES = 4096
_HEAD = re.compile(rb"(P[25])" + rb"(?:\s+|#[^\n\r]*[\n\r])+(\d+)" * 3 + rb"(?:#[^\n\r]*[\n\r])?\s")
_LARGEST = 65535
_PIECE = 2**20


@dataclass(frozen=True)
class Pgm:
    """What the header of a PGM says; pixels begin at ``offset``, the most significant byte first."""

    path: Path
    plain: bool
    width: int
    height: int
    largest: int
    offset: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("u1" if self.largest < 256 else "u2")

    @property
    def bits(self) -> int:
        return self.largest.bit_length()

    def pixels(self) -> np.ndarray:
        """Read all pixels (H, W); InputError where there are more or fewer, or one is above the largest value."""
        with decoding(str(self.path)):
            if self.plain:
                found = self._numbers()
            else:
                found = np.fromfile(self.path, self.dtype.newbyteorder(">"), offset=self.offset).astype(
                    self.dtype, copy=False
                )
            if found.size and int(found.max()) > self.largest:
                raise InputError(
                    f"{self.path} holds {found.max()} though its largest value is {self.largest}: it is damaged"
                )
            return found.reshape(self.height, self.width)

    def _numbers(self) -> np.ndarray:
        """Read numbers in plain text, a piece of the file at a time."""
        out, at, rest = np.empty(self.width * self.height, self.dtype), 0, b""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            while piece := file.read(_PIECE):
                words = (rest + piece).split()
                rest = b"" if piece[-1:].isspace() else words.pop()
                at = self._put(out, at, words)
            at = self._put(out, at, [rest] if rest else [])
        if at != out.size:
            raise InputError(f"{self.path} holds {at} numbers for {self.width} x {self.height} pixels: it was cut")
        return out

    def _put(self, out: np.ndarray, at: int, words: list[bytes]) -> int:
        """Put numbers into their places; InputError for what is none, too large, or too many."""
        if at + len(words) > out.size or not all(word.isdigit() and len(word) < 9 for word in words):
            raise InputError(
                f"{self.path} holds more than {self.width} x {self.height} numbers up to {self.largest}: it is damaged, or "
                "holds several images; write each into a file of its own"
            )
        numbers = np.array(words, "S9").astype(np.int64) if words else np.empty(0, np.int64)
        if numbers.size and numbers.max() > self.largest:
            raise InputError(
                f"{self.path} holds {numbers.max()} though its largest value is {self.largest}: it is damaged"
            )
        out[at : at + len(words)] = numbers
        return at + len(words)


def read_pgm(path: Path) -> Pgm:
    """Read the header of a PGM file; InputError for one that is none, holds other than one image, or was cut."""
    with decoding(str(path)):
        with open(path, "rb") as file:
            match = _HEAD.match(file.read(_HEAD_BYTES))
        size = path.stat().st_size
        if match is None:
            raise InputError(f"{path} is no PGM of one grey image: its head is damaged, write it again")
        width, height, largest = (int(text[:20]) for text in match.groups()[1:])
        check_frame_size(str(path), height, width)
        if not 0 < largest <= _LARGEST:
            raise InputError(f"{path} has the largest value {largest}: 1 to {_LARGEST} is what a PGM may have")
        found = Pgm(path, match[1] == b"P2", width, height, largest, match.end())
        if found.plain and size - found.offset < 2 * width * height - 1:
            raise InputError(f"{path} holds {size - found.offset} characters for {width} x {height} pixels: it was cut")
        if not found.plain:
            check_raw_size(str(path), width * height * found.dtype.itemsize, size - found.offset)
    return found
