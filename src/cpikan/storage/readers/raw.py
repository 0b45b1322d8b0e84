"""Frames of bare pixels, as cameras and frame grabbers write them: what they hold is told beside the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_frame_size, decoding
from cpikan.storage.readers.base import BaseReader, FrameLayout, fingerprint_files, frame_labels
from cpikan.storage.readers.raw_layout import EXAMPLE, RawLayout
from cpikan.storage.readers.read_as import ReadAs


class RawReader(BaseReader):
    """Rows of bare pixels, memory-mapped; those of 10 to 14 bits are uint16 whose largest value is that of their bits.

    Raises InputError for a file that is no whole number of frames, and where pixels hold more bits than were told.
    """

    def __init__(self, path: Path, layout: RawLayout, single: bool = False) -> None:
        self._path, self._layout, self._single = path, layout, single
        frames = _count(path, layout)
        shape = (frames, layout.height, layout.width)
        check_frame_size(str(path), layout.height, layout.width, frames)
        labels = (path.name,) if single and frames == 1 else frame_labels(path.name, shape)
        super().__init__(FrameLayout(shape, np.dtype("u1" if layout.format.bytes == 1 else "u2"), labels))
        self.bits = layout.format.bits
        with decoding(str(path)):
            self._bytes: np.ndarray = np.memmap(path, np.uint8, "r").view(np.ndarray)

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if stop == start or not self._bytes.size:
            return np.empty((self.shape[0], stop - start, self.shape[2]), self.dtype)
        found = self._unpacked(start, stop) if self._layout.format.packed else self._whole(start, stop)
        return self._justified(found)

    def files(self) -> list[Path]:
        return [self._path]

    def origin(self) -> tuple[Any, ...]:
        return (self._path.absolute(), self._layout, self._single)

    def fingerprint(self) -> str:
        return fingerprint_files([self._path], self.shape, self._layout)

    def close(self) -> None:
        self._bytes = self._bytes[:0].copy()

    def _whole(self, start: int, stop: int) -> np.ndarray:
        """View rows of pixels that take one byte or two."""
        layout, size = self._layout, self.dtype.itemsize
        stored = self.dtype.newbyteorder(">" if layout.endian == "big" else "<")
        strides = (layout.frame_bytes + layout.frame_padding, layout.row_bytes, size)
        first = layout.header + start * layout.row_bytes
        shape = (self.shape[0], stop - start, self.shape[2])
        return np.ndarray(shape, stored, self._bytes.data, first, strides).astype(self.dtype, copy=False)

    def _unpacked(self, start: int, stop: int) -> np.ndarray:
        """Unpack rows; where a row is not a whole number of bytes, from the pixel before them on."""
        layout = self._layout
        pixels, size = layout.format.pixels, layout.format.bytes
        out = np.empty((self.shape[0], stop - start, layout.width), np.uint16)
        for frame, rows in enumerate(out):
            begin = layout.header + frame * (layout.frame_bytes + layout.frame_padding)
            if layout.row_padding:
                part = self._bytes[begin + start * layout.row_bytes :][: (stop - start) * layout.row_bytes]
                part = part.reshape(stop - start, -1)[:, : layout.row_bytes - layout.row_padding].reshape(-1)
                rows[...] = _UNPACK[layout.pixel](part.reshape(-1, size)).reshape(rows.shape)
                continue
            first, last = start * layout.width // pixels, -(-stop * layout.width // pixels)
            part = self._bytes[begin + first * size : min(begin + last * size, begin + layout.frame_bytes)]
            part = np.pad(part, (0, (last - first) * size - part.size))  # the last group of a frame may be cut short
            skipped = start * layout.width - first * pixels
            rows[...] = (
                _UNPACK[layout.pixel](part.reshape(-1, size)).reshape(-1)[skipped:][: rows.size].reshape(rows.shape)
            )
        return out

    def _justified(self, pixels: np.ndarray) -> np.ndarray:
        """Check that no pixel has bits where there should be none, and move those of the left to the right."""
        layout, spare = self._layout, 8 * self.dtype.itemsize - self._layout.format.bits
        if spare == 0 or layout.format.packed:
            return pixels
        if layout.justified == "left":
            if (pixels & ((1 << spare) - 1)).any():
                raise InputError(
                    f"{self._path} holds bits below the upper {layout.format.bits}, so its pixels are not justified left "
                    f'{layout.pixel}: say justified = "right", or the format that the camera has'
                )
            return pixels >> spare
        if pixels.max() >> layout.format.bits:
            raise InputError(
                f'{self._path} holds {pixels.max()}, more than {layout.format.bits} bits: say justified = "left", '
                'endian = "big", or the format that the camera has'
            )
        return pixels


def open_raw(path: Path, how: ReadAs) -> RawReader:
    """Open bare pixels as told; InputError where nobody told."""
    if how.raw is None:
        raise InputError(
            f"{path} holds pixels without a header: write into its acquisition.toml what they are, such as {EXAMPLE}, or "
            "give --raw"
        )
    return RawReader(path, how.raw, how.single)


def _count(path: Path, layout: RawLayout) -> int:
    """Count the frames of a file; the last one may lack its padding."""
    with decoding(str(path)):
        size = path.stat().st_size - layout.header
    step = layout.frame_bytes + layout.frame_padding
    for pixels in (size, size + layout.frame_padding):
        if pixels >= step and pixels % step == 0:
            return pixels // step
    raise InputError(
        f"{path} holds {max(0, size)} bytes behind a header of {layout.header}, {max(0, size) / step:.6g} frames of {step} "
        f"({layout.width} x {layout.height} {layout.pixel}): it was cut, or raw says another size, format or padding"
    )


def _packed_12(triples: np.ndarray) -> np.ndarray:
    """Unpack Mono12Packed (GigE Vision): the upper 8 bits of a pixel, the lower 4 of both, the upper 8 of the next."""
    a, b, c = (triples[:, i].astype(np.uint16) for i in range(3))
    return np.stack([a << 4 | b & 15, c << 4 | b >> 4], axis=1)


def _packed_10(triples: np.ndarray) -> np.ndarray:
    """Unpack Mono10Packed (GigE Vision): the lower 2 bits of both pixels lie in bits 0 and 4 of the middle byte."""
    a, b, c = (triples[:, i].astype(np.uint16) for i in range(3))
    return np.stack([a << 2 | b & 3, c << 2 | b >> 4 & 3], axis=1)


def _dense_12(triples: np.ndarray) -> np.ndarray:
    """Unpack Mono12p (PFNC): pixels one after the other, the lowest bit first."""
    a, b, c = (triples[:, i].astype(np.uint16) for i in range(3))
    return np.stack([a | (b & 15) << 8, b >> 4 | c << 4], axis=1)


def _dense_10(fives: np.ndarray) -> np.ndarray:
    """Unpack Mono10p (PFNC): pixels one after the other, the lowest bit first."""
    a, b, c, d, e = (fives[:, i].astype(np.uint16) for i in range(5))
    return np.stack([a | (b & 3) << 8, b >> 2 | (c & 15) << 6, c >> 4 | (d & 63) << 4, d >> 6 | e << 2], axis=1)


_UNPACK = {"Mono12Packed": _packed_12, "Mono10Packed": _packed_10, "Mono12p": _dense_12, "Mono10p": _dense_10}
