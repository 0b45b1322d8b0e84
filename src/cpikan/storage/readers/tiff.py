"""Frames in TIFF files: the pages of one file, or one page each of several."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import (
    MAX_FRAMES,
    check_compressed_size,
    check_frame_size,
    check_pixel_type,
    check_raw_size,
    decoding,
)
from cpikan.storage.readers.base import BaseReader, FrameLayout, fingerprint_files
from cpikan.storage.readers.blocks import STEPS, WAVELENGTH
from cpikan.storage.readers.grey import to_grey
from cpikan.storage.readers.scratch import ScratchFrames
from cpikan.storage.readers.turned import AS_STORED, Turn, turn_of_tag

_CLASSIC, _BIG = 42, 43
_ORIENTATION = 274  # TIFF 6.0: where row 0 and column 0 of what is stored lie in the picture
_MEANT = {"E": WAVELENGTH, "P": STEPS[1]}  # letters of tifffile: lambda and phase
_NO_FRAMES = {
    "A": "angles", "R": "tiles", "H": "lifetimes", "L": "exposures", "V": "events", "M": "parts of a mosaic",
}  # fmt: skip


def count_pages(path: Path) -> int:
    """Count the page directories of a TIFF or BigTIFF file (TIFF 6.0, section 2).

    Raises InputError when the chain leaves the file or runs in a circle (decoders end it silently), or for no TIFF.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(header[:2])
        if order is None or len(header) < 16:
            raise InputError(f"{path} is not a TIFF file: its first bytes say otherwise")
        version = struct.unpack(order + "H", header[2:4])[0]
        if version not in (_CLASSIC, _BIG):
            raise InputError(f"{path} is a TIFF of unknown version {version}: 42 and 43 (BigTIFF) are read")
        big = version == _BIG
        count_format, link_format, entry = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
        count_bytes, link_bytes = struct.calcsize(count_format), struct.calcsize(link_format)
        place = struct.unpack(link_format, header[8:16] if big else header[4:8])[0]
        seen: set[int] = set()
        while place:
            if place in seen or place + count_bytes > size:
                raise InputError(
                    f"{path} loses its pages after {len(seen)}: it is truncated or damaged, write it again"
                )
            seen.add(place)
            if len(seen) > MAX_FRAMES:
                raise InputError(f"{path} has more than {MAX_FRAMES} pages: it is damaged")
            file.seek(place)
            entries = struct.unpack(count_format, file.read(count_bytes))[0]
            link = place + count_bytes + entries * entry
            if link + link_bytes > size:
                raise InputError(f"{path} ends within page {len(seen) - 1}: it is truncated or damaged, write it again")
            file.seek(link)
            place = struct.unpack(link_format, file.read(link_bytes))[0]
    if not seen:
        raise InputError(f"{path} has no pages: write the frames again")
    return len(seen)


@dataclass(frozen=True)
class PageOrder:
    """The pages of a file as frames, wavelength by wavelength: ``pages`` are their numbers in the file.

    ``groups`` is the number of wavelengths where the file says so, ``axes`` its letters where they decided.
    """

    pages: tuple[int, ...]
    groups: int | None = None
    axes: str | None = None


def page_order(label: str, file: Any, count: int) -> PageOrder:
    """Order the ``count`` frames of an open tifffile.TiffFile by the axes that it names.

    C is the wavelength and Z or T the step, whichever comes first. Axes without these names are taken as they lie,
    wavelength-major. Raises InputError for Z and T side by side, for more than two axes of frames, and for frames that
    the file looks for in other files.
    """
    stored = tuple(range(count))
    if len(file.series) != 1:
        return PageOrder(stored)
    series = file.series[0]
    if file.is_ome and count > 1:
        stored = _listed(label, series, count)
    axes, shape = series.axes, tuple(series.shape)
    _check_letters(label, axes, shape)
    axes = "".join(_MEANT.get(letter, letter) for letter in axes)
    leading = [(name, size) for name, size in zip(axes, shape, strict=True) if name not in "YXS" and size > 1]
    names = [name for name, _ in leading]
    if math.prod(size for _, size in leading) != count or not set(names) & set(WAVELENGTH + STEPS):
        groups = shape[0] if file.is_shaped and len(shape) == 4 and shape[0] * shape[1] == count else None
        return PageOrder(stored, groups)
    if len(leading) < 2:
        return PageOrder(stored)
    if len(leading) > 2 or WAVELENGTH not in names:
        raise InputError(
            f"{label} has frames along {' and '.join(names)} (axes {axes}): a stack has one axis of wavelengths, called "
            "C, and one of steps, Z or T; write it so"
        )
    first, second = (size for _, size in leading)
    if names[0] == WAVELENGTH:
        return PageOrder(stored, first, axes)
    return PageOrder(
        tuple(stored[step * second + wave] for wave in range(second) for step in range(first)), second, axes
    )


def _check_letters(label: str, axes: str, shape: tuple[int, ...]) -> None:
    """Refuse axes that are no frames by name, and rows and columns that do not come last."""
    for letter, size in zip(axes, shape, strict=True):
        if letter in _NO_FRAMES and size > 1:
            raise InputError(
                f"{label} has an axis {letter} ({_NO_FRAMES[letter]}) of {size} (axes {axes}): a stack has wavelengths (C) and "
                "steps (Z or T); write one file for each, or name the axis so"
            )
    if "Y" in axes and "X" in axes and not axes.removesuffix("S").endswith("YX"):
        raise InputError(
            f"{label} has the axes {axes}, whose rows and columns do not come last: write it as frames after each other "
            "(.., Y, X)"
        )


def _listed(label: str, series: Any, count: int) -> tuple[int, ...]:
    """List the pages in the order that OME metadata give them."""
    if series.is_multifile or any(page is None for page in series.pages) or len(series.pages) != count:
        raise InputError(
            f"{label} names frames that are not in it (OME-TIFF of several files, or a part of one): write all frames "
            "into one file"
        )
    return tuple(int(page.index) for page in series.pages)


@dataclass(frozen=True)
class TiffPage:
    """What the header of one page says; ``offset`` is where its pixels lie as one plain block, or None."""

    path: Path
    index: int
    label: str
    height: int
    width: int
    dtype: np.dtype
    samples: int
    offset: int | None
    turn: Turn = AS_STORED

    @property
    def frame_bytes(self) -> int:
        return self.height * self.width * self.dtype.itemsize


class TiffReader(BaseReader):
    """Rows of TIFF pages of one size and type; uncompressed pages are memory-mapped, others decoded to a scratch file.

    ``groups`` is the number of wavelengths when the file says it, by its shape (L, K, H, W) or by ``axes`` with names.
    Raises InputError for pages that differ, for colour, and for sizes that the stored bytes cannot hold.
    """

    def __init__(self, pages: Sequence[TiffPage], groups: int | None = None, axes: str | None = None) -> None:
        first, self.axes = pages[0], axes
        for page in pages:
            if (page.height, page.width, page.dtype) != (first.height, first.width, first.dtype):
                raise InputError(
                    f"{page.label} is {page.height} x {page.width} {page.dtype} but {first.label} is {first.height} x "
                    f"{first.width} {first.dtype}: the frames of a stack have one size and one type"
                )
        shape = (len(pages), first.height, first.width)
        native = check_pixel_type(first.label, first.dtype)
        if any(page.turn != first.turn for page in pages):
            raise InputError(
                f"{first.path} has pages of several orientations (tag {_ORIENTATION}): write all of them alike"
            )
        super().__init__(FrameLayout(shape, native, tuple(page.label for page in pages), groups, first.dtype))
        self.orientation = f"by the orientation tag: {first.turn}" if first.turn else ""
        self._pages = pages
        self._mapped: list[np.ndarray] = []
        self._scratch: ScratchFrames | None = None
        if all(page.offset is not None for page in pages):
            self._mapped = [_map(page) for page in pages]
        else:
            decode = [partial(_decoded, page, native) for page in pages]
            samples = max(page.samples for page in pages)
            self._scratch = ScratchFrames(shape, native, decode, (2 * samples + 1) * first.frame_bytes)
            if samples > 1:
                self._scratch.fill(1)  # only pixels say whether RGB is grey

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if self._scratch is not None:
            return self._scratch.rows(start, stop)
        band = np.empty((self.shape[0], stop - start, self.shape[2]), self.dtype)
        return self.read_rows(start, stop, band)

    def read_rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        if out is None or self._scratch is not None:
            return super().read_rows(start, stop, out)
        for frame, mapped in zip(out, self._mapped, strict=True):
            np.copyto(frame, mapped[start:stop])
        return out

    def files(self) -> list[Path]:
        return list(dict.fromkeys(page.path for page in self._pages))

    def origin(self) -> tuple[Any, ...]:
        return ([replace(page, path=page.path.absolute()) for page in self._pages], self.groups, self.axes)

    def fingerprint(self) -> str:
        return fingerprint_files(self.files(), self.shape, self.dtype)

    def close(self) -> None:
        self._mapped = []
        if self._scratch is not None:
            self._scratch.close()


def open_tiff(path: Path) -> TiffReader:
    """Open the pages of one TIFF file as frames."""
    pages, order = read_pages(path)
    return TiffReader([pages[number] for number in order.pages], order.groups, order.axes)


def read_pages(path: Path) -> tuple[list[TiffPage], PageOrder]:
    """Read the pages that a file's headers describe, as they lie in it, and their order as frames.

    Raises InputError for anything but 2-D pages of allowed types whose claimed size fits what is stored.
    """
    import tifffile

    with decoding(str(path)), _without_log(), tifffile.TiffFile(path) as file:
        count = count_pages(path)
        if len(file.pages) != count:
            raise InputError(f"{path} has {count} pages of which {len(file.pages)} can be read: it is damaged")
        if count == 1:
            pages = _single_page(path, file)
        else:
            pages = [_describe(path, file.pages[index], index, _label(path, index)) for index in range(count)]
        order = page_order(str(path), file, len(pages))
    claimed, stored = sum(page.frame_bytes for page in pages), path.stat().st_size
    check_compressed_size(str(path), claimed, stored)
    if all(page.offset is not None for page in pages) and claimed > stored:
        check_raw_size(str(path), claimed, stored)
    return pages, order


def _single_page(path: Path, file: Any) -> list[TiffPage]:
    """Describe one page, or the frames that ImageJ and others store behind the header of the only one."""
    page = _describe(path, file.pages[0], 0, path.name)
    series = file.series[0]
    frames = series.size // max(1, page.height * page.width)
    if page.samples > 1 or frames < 2 or page.offset is None:
        return [page]
    size = path.stat().st_size - page.offset
    if frames * page.frame_bytes > size:
        check_raw_size(str(path), frames * page.frame_bytes, size)
    offsets = [page.offset + k * page.frame_bytes for k in range(frames)]
    return [
        TiffPage(path, k, _label(path, k), page.height, page.width, page.dtype, 1, offset)
        for k, offset in enumerate(offsets)
    ]


@contextmanager
def _without_log() -> Iterator[None]:
    """Keep tifffile's remarks on damaged tags off stderr; handlers that somebody has set still get them."""
    handler, logger = logging.NullHandler(), logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _label(path: Path, index: int) -> str:
    return f"{path.name}[{index}]"


def _describe(path: Path, page: Any, index: int, label: str) -> TiffPage:
    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    check_frame_size(str(path), height, width)
    if page.dtype is None:
        raise InputError(
            f"{label} has {page.bitspersample} bits in sample format {page.sampleformat}: give 8 or 16 bits, or floats"
        )
    check_pixel_type(label, page.dtype)
    if page.imagedepth != 1 or samples not in (1, 3, 4) or page.photometric not in (0, 1, 2):
        raise InputError(f"{label} is not grey: give grey frames, or RGB that is grey")
    if page.photometric == 0:
        raise InputError(f"{label} is stored with white as zero: write it with black as zero (photometric minisblack)")
    claimed = height * width * samples * page.dtype.itemsize
    stored = sum(page.databytecounts)
    check_compressed_size(label, claimed, stored)
    ends = [begin + count for begin, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    size = path.stat().st_size
    if not ends or max(ends) > size or min(page.databytecounts) == 0:
        raise InputError(
            f"{label} claims pixels up to byte {max(ends, default=0)} of {size}, or none for a part: it is truncated"
        )
    offset = page.dataoffsets[0] if page.is_memmappable and samples == 1 else None
    if offset is not None and offset + claimed > size:
        check_raw_size(label, claimed, size - offset)
    dtype, turn = page.dtype.newbyteorder(page.parent.byteorder), turn_of_tag(label, _tag(page))
    if turn.transpose:  # what lies on its side is decoded, not mapped
        height, width, offset = width, height, None
    return TiffPage(path, index, label, height, width, dtype, samples, offset, turn)


def _tag(page: Any) -> Any:
    """Read the orientation of a page; 0, which some writers leave there, is none."""
    value = page.tags.valueof(_ORIENTATION)
    return int(value) if isinstance(value, int) and value else None


def _map(page: TiffPage) -> np.ndarray:
    shape = (page.height, page.width)
    with decoding(page.label):
        found = np.memmap(page.path, dtype=page.dtype, mode="r", offset=page.offset or 0, shape=shape).view(np.ndarray)
    return page.turn.view(found)


def _decoded(page: TiffPage, native: np.dtype) -> np.ndarray:
    import tifffile

    with decoding(page.label), _without_log(), tifffile.TiffFile(page.path) as file:
        stored: Any = file.pages[page.index]
        pixels = stored.asarray(maxworkers=1)
        if page.samples > 1 and stored.planarconfig == 2:
            pixels = np.moveaxis(pixels, 0, -1)
        grey = to_grey(page.label, pixels).astype(native, copy=False)
        return np.ascontiguousarray(page.turn.view(grey))
