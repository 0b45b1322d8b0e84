"""Frames in TIFF files: the pages of one file, or one page each of several."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_compressed_size, check_frame_size, check_pixel_type, check_raw_size, decoding
from cpikan.storage.readers.base import BaseReader, FrameLayout, fingerprint_files
from cpikan.storage.readers.grey import to_grey
from cpikan.storage.readers.scratch import ScratchFrames
from cpikan.storage.readers.tiff_axes import PageOrder, page_order
from cpikan.storage.readers.tiff_chain import count_pages


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
        super().__init__(FrameLayout(shape, native, tuple(page.label for page in pages), groups, first.dtype))
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
    byteorder = page.parent.byteorder
    return TiffPage(path, index, label, height, width, page.dtype.newbyteorder(byteorder), samples, offset)


def _map(page: TiffPage) -> np.ndarray:
    shape = (page.height, page.width)
    with decoding(page.label):
        return np.memmap(page.path, dtype=page.dtype, mode="r", offset=page.offset or 0, shape=shape).view(np.ndarray)


def _decoded(page: TiffPage, native: np.dtype) -> np.ndarray:
    import tifffile

    with decoding(page.label), _without_log(), tifffile.TiffFile(page.path) as file:
        stored: Any = file.pages[page.index]
        pixels = stored.asarray(maxworkers=1)
        if page.samples > 1 and stored.planarconfig == 2:
            pixels = np.moveaxis(pixels, 0, -1)
        return to_grey(page.label, pixels).astype(native, copy=False)
