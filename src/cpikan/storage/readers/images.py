"""Frames in a folder of image files: BMP, PNG, JPEG, PGM or TIFF, one frame each, in natural order of their names."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.formats import IMAGE_SUFFIXES
from cpikan.storage.headers import check_compressed_size, check_frame_size, check_pixel_type, decoding
from cpikan.storage.readers.base import BaseReader, FrameLayout, fingerprint_files
from cpikan.storage.readers.grey import JPEG_TOLERANCE_DN, to_grey
from cpikan.storage.readers.name_pattern import natural_key
from cpikan.storage.readers.pgm import read_pgm
from cpikan.storage.readers.scratch import ScratchFrames
from cpikan.storage.readers.tiff import TiffPage, TiffReader, read_pages
from cpikan.storage.readers.turned import AS_STORED, Turn, turn_of_tag

_ORIENTATION = 274  # the tag of EXIF
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class ImageHeader:
    """What the header of one image file says; ``kind`` is the format its first bytes tell, whatever its name."""

    path: Path
    kind: str
    height: int
    width: int
    dtype: np.dtype
    channels: int
    page: TiffPage | None = None
    turn: Turn = AS_STORED
    bits: int | None = None

    def __str__(self) -> str:
        return f"{self.width} x {self.height} {self.dtype} {self.kind}"


class ImagesReader(BaseReader):
    """Rows of BMP, PNG and JPEG files of one size and type, decoded once each to a scratch file.

    Opens headers only, except that of RGB files the first is decoded: only pixels say whether they are grey. Raises
    InputError for colour and for damaged files, naming the file.
    """

    def __init__(self, headers: Sequence[ImageHeader]) -> None:
        first = headers[0]
        shape = (len(headers), first.height, first.width)
        super().__init__(FrameLayout(shape, first.dtype, tuple(header.path.name for header in headers)))
        self.bits = max((header.bits or 0 for header in headers), default=0) or None
        self.orientation = f"by the orientation tag: {first.turn}" if first.turn else ""
        self._headers, self._paths = tuple(headers), [header.path for header in headers]
        channels = max(header.channels for header in headers)
        working = (1 + (2 if channels == 1 else 8)) * first.height * first.width * first.dtype.itemsize
        self._scratch = ScratchFrames(shape, first.dtype, [partial(_decoded, header) for header in headers], working)
        if channels > 1:
            self._scratch.fill(1)

    def _rows(self, start: int, stop: int) -> np.ndarray:
        return self._scratch.rows(start, stop)

    def files(self) -> list[Path]:
        return self._paths

    def origin(self) -> tuple[Any, ...]:
        return ([replace(header, path=header.path.absolute()) for header in self._headers],)

    def fingerprint(self) -> str:
        return fingerprint_files(self._paths, self.shape, self.dtype)

    def close(self) -> None:
        self._scratch.close()


def image_files(folder: Path) -> list[Path]:
    """List the image files of a folder in natural order; hidden files and everything else are left out."""
    found = [
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted((path for path in found if path.is_file()), key=lambda path: natural_key(path.name))


def open_images(paths: Sequence[Path]) -> tuple[BaseReader, str]:
    """Open image files as frames in the order given; returns the reader and the format (``JPEG``).

    Raises InputError, naming the odd file, when sizes, pixel types or formats differ.
    """
    headers = [read_header(path) for path in paths]
    kinds = Counter(str(header) for header in headers)
    usual, count = kinds.most_common(1)[0]
    for header in headers:
        if str(header) != usual:
            raise InputError(
                f"{header.path} is {header} but {count} of the {len(headers)} images in its folder are {usual}: the "
                "frames of a stack have one size, type and format, so give each stack a folder of its own"
            )
    pages = [header.page for header in headers if header.page is not None]
    if pages:
        return TiffReader(pages), "TIFF"
    return ImagesReader(headers), headers[0].kind


def read_image(path: Path) -> np.ndarray:
    """Read one grey image file (H, W)."""
    with closing(open_images([path])[0]) as reader:
        return np.array(reader.read_rows(0, reader.shape[1])[0])


def read_header(path: Path) -> ImageHeader:
    """Read size and pixel type from the header of one image file; nothing is decoded."""
    with decoding(str(path)):
        with open(path, "rb") as file:
            magic = file.read(26)
        if magic[:4] in _TIFF_MAGIC:
            return _tiff_header(path)
        if magic[:2] in (b"P2", b"P5"):
            return _pgm_header(path)
        image = _pillow(path, magic)
        with image:
            (width, height), mode = image.size, image.mode
            tag = image.getexif().get(_ORIENTATION) if image.format == "JPEG" else None
    kind = image.format or ""
    dtype = np.dtype("uint16" if kind == "PNG" and magic[24] == 16 else "uint8")
    channels = {"L": 1, "I": 1, "I;16": 1, "LA": 2, "RGB": 3, "P": 3, "RGBA": 4}.get(mode)
    if channels is None:
        raise InputError(f"{path} holds {mode} pixels: give 8-bit or 16-bit grey, or RGB that is grey")
    check_frame_size(str(path), height, width)
    check_compressed_size(str(path), height * width * channels * dtype.itemsize, path.stat().st_size)
    turn = turn_of_tag(str(path), tag)
    if turn.transpose:
        height, width = width, height
    return ImageHeader(path, kind, height, width, dtype, channels, turn=turn)


def _pgm_header(path: Path) -> ImageHeader:
    pgm = read_pgm(path)
    return ImageHeader(path, "PGM", pgm.height, pgm.width, pgm.dtype, 1, bits=pgm.bits)


def _tiff_header(path: Path) -> ImageHeader:
    pages = read_pages(path)[0]
    if len(pages) != 1:
        raise InputError(
            f"{path} has {len(pages)} pages: in a folder each image is one frame; give the file itself as the stack"
        )
    page = pages[0]
    native = check_pixel_type(str(path), page.dtype)
    return ImageHeader(path, "TIFF", page.height, page.width, native, page.samples, page)


def _pillow(path: Path, magic: bytes):  # type: ignore[no-untyped-def]  # Pillow's classes are imported where they are used
    """Open with the class of its format; ``Image.open`` would add a limit of its own below our frame size."""
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin

    if magic.startswith(_PNG_MAGIC):
        return PngImagePlugin.PngImageFile(path)
    if magic.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(path)
    if magic.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile(path)
    raise InputError(f"{path} is not a BMP, PNG, JPEG, TIFF or PGM image: remove it from the folder or convert it")


def _plain_png(data: bytes) -> bytes:
    """Leave out of a PNG what says nothing of its pixels: the decoder writes its opinion of profiles and texts to stderr.

    Raises ValueError where the check of a chunk does not hold.
    """
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        stop = at + 12 + int.from_bytes(data[at : at + 4])
        name, chunk = data[at + 4 : at + 8], data[at:stop]
        if name in _PIXEL_CHUNKS:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
                raise ValueError(f"the check of its part {name.decode()} does not hold")
            kept.append(chunk)
        at = stop
    return b"".join(kept)


def _decoded(header: ImageHeader) -> np.ndarray:
    with decoding(str(header.path)):
        tolerance = JPEG_TOLERANCE_DN if header.kind == "JPEG" else 0
        return np.ascontiguousarray(header.turn.view(to_grey(str(header.path), _pixels(header), tolerance)))


def _pixels(header: ImageHeader) -> np.ndarray:
    """Decode all pixels (H, W) or (H, W, channels) in the file's own depth."""
    if header.kind == "PGM":
        return read_pgm(header.path).pixels()
    if header.dtype == np.uint16:  # Pillow would cut 16-bit colour to 8 bits
        import imagecodecs

        return imagecodecs.png_decode(_plain_png(header.path.read_bytes()))
    with open(header.path, "rb") as file:
        magic = file.read(26)
    with _pillow(header.path, magic) as image:
        image.load()
        return np.asarray(image.convert("RGB") if image.mode == "P" else image)
