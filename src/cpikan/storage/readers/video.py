"""Frames of a video, decoded by PyAV (the extra ``formats``); a codec that is not lossless is said to be none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError, need
from cpikan.storage.headers import MAX_FRAMES, check_compressed_size, check_frame_size, decoding
from cpikan.storage.readers.base import BaseReader, FrameLayout, fingerprint_files, frame_labels
from cpikan.storage.readers.grey import to_grey
from cpikan.storage.readers.scratch import ScratchFrames

_LOSSLESS = frozenset(
    (
        "rawvideo",
        "ffv1",
        "huffyuv",
        "ffvhuff",
        "utvideo",
        "magicyuv",
        "png",
        "apng",
        "bmp",
        "tiff",
        "qtrle",
        "lagarith",
        "zlib",
        "mszh",
        "msrle",
        "dpx",
        "pgm",
    )
)
_GREY = {"gray": 8, **{f"gray{bits}{end}": bits for bits in (9, 10, 12, 14, 16) for end in ("le", "be")}}
_CHROMA_DN = {True: 0, False: 3}  # by which chroma may differ from grey: not at all where nothing is lost
_LOSSY = (
    "{path} is a video of the codec {codec}, which changes pixel values: phases carry what it did, most of all in faint "
    "fringes; record uncompressed or with a lossless codec (FFV1, HuffYUV, grey PNG)"
)


class VideoReader(BaseReader):
    """Rows of the frames of an AVI, MP4, MOV or MKV file, decoded once, one after the other, to a scratch file.

    Grey of 8 to 16 bits, RGB that is grey, or YUV without colour, of which the luma counts. Opening counts the packets
    and decodes the first frame. Raises InputError for colour, and for files that are cut or damaged.
    """

    def __init__(self, path: Path) -> None:
        need("av", "formats", "videos")
        self._path = path
        with decoding(str(path)), closing(_opened(path)) as video:
            stream = video.streams.video[0]
            codec, kind = stream.codec_context.name, str(stream.codec_context.pix_fmt)
            height, width = int(stream.codec_context.height), int(stream.codec_context.width)
            check_frame_size(str(path), height, width)
            frames = _count(path, video, stream)
        lossless = codec in _LOSSLESS
        bits = _GREY.get(kind, 8)
        dtype = np.dtype("u1" if bits == 8 else "u2")
        shape = (frames, height, width)
        check_compressed_size(str(path), frames * height * width * dtype.itemsize, path.stat().st_size)
        super().__init__(FrameLayout(shape, dtype, frame_labels(path.name, shape)))
        self.bits = bits
        if not lossless:
            self.remarks = (("lossy-video", _LOSSY.format(path=path, codec=codec)),)
        self._frames: Iterator[np.ndarray] | None = None
        decode = [partial(self._next, k, _CHROMA_DN[lossless]) for k in range(frames)]
        self._scratch = ScratchFrames(shape, dtype, decode, 2**30)  # one at a time: each is decoded from the one before
        try:
            self._scratch.fill(1)  # only pixels say whether the frames are grey
        except BaseException:
            self.close()
            raise

    def _rows(self, start: int, stop: int) -> np.ndarray:
        return self._scratch.rows(start, stop)

    def files(self) -> list[Path]:
        return [self._path]

    def origin(self) -> tuple[Any, ...]:
        return (self._path.absolute(),)

    def fingerprint(self) -> str:
        return fingerprint_files([self._path], self.shape, self.dtype)

    def close(self) -> None:
        self._frames = None
        self._scratch.close()

    def _next(self, number: int, tolerance: int) -> np.ndarray:
        if number == 0 or self._frames is None:
            self._frames = self._decoded(tolerance)
        with decoding(str(self._path)):
            found = next(self._frames, None)
        if found is None:
            raise InputError(f"{self._path} ends within frame {number} of {self.shape[0]}: it was cut; copy it again")
        if number == self.shape[0] - 1:
            self._frames = None
        return found

    def _decoded(self, tolerance: int) -> Iterator[np.ndarray]:
        with closing(_opened(self._path)) as video:
            stream = video.streams.video[0]
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(video.decode(stream)):
                if (frame.height, frame.width) != self.shape[1:]:
                    raise InputError(
                        f"{self._path} changes its size to {frame.width} x {frame.height} in frame {number}"
                    )
                yield _grey(f"{self._path.name}[{number}]", frame, tolerance).astype(self.dtype, copy=False)


def open_video(path: Path) -> VideoReader:
    """Open the frames of a video."""
    return VideoReader(path)


def _opened(path: Path) -> Any:
    import av

    av.logging.set_level(av.logging.PANIC)
    video = av.open(str(path), options={"protocol_whitelist": "file"})
    if len(video.streams.video) != 1:
        count = len(video.streams.video)
        video.close()
        raise InputError(f"{path} holds {count} videos: give a file with one")
    return video


def _count(path: Path, video: Any, stream: Any) -> int:
    """Count the frames by their packets: what containers say of their number is often an estimate."""
    count = 0
    for packet in video.demux(stream):
        count += packet.size > 0
        if count > MAX_FRAMES:
            raise InputError(f"{path} holds more than {MAX_FRAMES} frames: cut the steps out of it")
    if count == 0:
        raise InputError(f"{path} holds no frames: record it again")
    return count


def _grey(label: str, frame: Any, tolerance: int) -> np.ndarray:
    """Give the grey of a frame (H, W)."""
    kind = frame.format.name
    if kind in _GREY:
        return _plane(frame, 0, 1 if _GREY[kind] == 8 else 2, kind.endswith("be"))
    if kind.startswith(("yuv", "yuvj", "nv")) and all(part.bits == 8 for part in frame.format.components):
        for number in range(1, len(frame.planes)):
            chroma = _plane(frame, number, 1, False)
            if int(chroma.min()) < 128 - tolerance or int(chroma.max()) > 128 + tolerance:
                raise InputError(f"{label} is in colour: give grey frames, or record without colour")
        return _plane(frame, 0, 1, False)
    if frame.format.is_rgb or kind in ("pal8", "monow", "monob"):
        return to_grey(label, frame.to_ndarray(format="rgb24"), tolerance)
    raise InputError(f"{label} has pixels of the form {kind}: grey, RGB that is grey, and 8-bit YUV are read")


def _plane(frame: Any, number: int, size: int, big_endian: bool) -> np.ndarray:
    """View a plane without the padding of its rows."""
    plane = frame.planes[number]
    lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
    if number and frame.format.name.startswith("nv"):
        return lines[:, : 2 * plane.width]
    kind = np.dtype("u1" if size == 1 else ">u2" if big_endian else "<u2")
    return np.ascontiguousarray(lines[:, : size * plane.width]).view(kind)
